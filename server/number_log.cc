#include "server/number_log.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/durable_file.h"
#include "server/refusal.h"

namespace esper::server {
namespace {

namespace fs = std::filesystem;

}  // namespace

NumberLog::NumberLog(std::string folder, std::string file)
    : folder_(std::move(folder)), file_(std::move(file)) {}

absl::Status NumberLog::Open() {
  if (folder_.empty()) return absl::OkStatus();
  const fs::path path = fs::path(folder_) / file_;
  std::error_code error;
  if (!fs::exists(path, error) && !error) return absl::OkStatus();
  std::ifstream file(path);
  const std::string text((std::istreambuf_iterator<char>(file)),
                         std::istreambuf_iterator<char>());
  int64_t highest = 0;
  if (!absl::SimpleAtoi(text, &highest) || highest < 1) {
    return Refuse("CORRUPT_CHECKPOINT", file_,
                  absl::StrCat(path.string(), " holds no number."),
                  "Write the highest number that was ever given out into it.");
  }
  absl::MutexLock lock(&mu_);
  highest_ = highest;
  return absl::OkStatus();
}

absl::StatusOr<int64_t> NumberLog::Take(int64_t current) {
  absl::MutexLock lock(&mu_);
  const int64_t next = std::max(current, highest_) + 1;
  if (!folder_.empty()) {
    std::error_code error;
    fs::create_directories(folder_, error);
    if (error) {
      return absl::InternalError(
          absl::StrCat("Cannot create ", folder_, ": ", error.message(), "."));
    }
    const absl::Status kept = ReplaceFile((fs::path(folder_) / file_).string(),
                                          absl::StrCat(next, "\n"));
    if (!kept.ok()) return kept;
  }
  highest_ = next;
  return next;
}

int64_t NumberLog::highest() const {
  absl::MutexLock lock(&mu_);
  return highest_;
}

}  // namespace esper::server
