#include "core/env/file_bytes.h"

#include <zlib.h>

#include <array>
#include <filesystem>
#include <memory>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace esper::env {
namespace {

namespace fs = std::filesystem;

struct CloseGzip {
  void operator()(gzFile_s* file) const { gzclose(file); }
};

}  // namespace

absl::Status CorruptFile(const std::string& path, const std::string& what) {
  return absl::DataLossError(absl::StrCat(path, ": ", what));
}

absl::Status CorruptFileAt(const std::string& path, size_t offset,
                           const std::string& what) {
  return CorruptFile(path, absl::StrCat("at byte ", offset, ": ", what));
}

absl::StatusOr<std::string> ReadFileBytes(const std::string& path,
                                          const ReadOptions& options) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    return absl::NotFoundError(absl::StrCat(path, ": is a folder, not a file"));
  }
  const std::unique_ptr<gzFile_s, CloseGzip> file(gzopen(path.c_str(), "rb"));
  if (file == nullptr) {
    return absl::NotFoundError(absl::StrCat(path, ": cannot be opened"));
  }
  std::string bytes;
  std::array<char, 1 << 16> chunk;
  while (true) {
    const int count = gzread(file.get(), chunk.data(), chunk.size());
    // A member that breaks off shows as a short read and Z_BUF_ERROR.
    int code = Z_OK;
    const char* message = gzerror(file.get(), &code);
    if (count < 0 || (code != Z_OK && code != Z_STREAM_END)) {
      return CorruptFile(
          path, absl::StrCat("not a whole gzip file, at byte ", bytes.size(),
                             " of the content: ",
                             code == Z_BUF_ERROR ? "it breaks off" : message));
    }
    if (count == 0) break;
    bytes.append(chunk.data(), count);
    if (bytes.size() > options.max_bytes) {
      return CorruptFileAt(path, options.max_bytes,
                           absl::StrCat("the content is longer than ",
                                        options.max_bytes, " bytes"));
    }
  }
  if (!options.allow_plain && gzdirect(file.get())) {
    return CorruptFileAt(path, 0, "not a gzip file");
  }
  return bytes;
}

absl::StatusOr<std::string> FindPlainOrGzip(const std::string& folder,
                                            const std::string& name) {
  const fs::path plain = fs::path(folder) / name;
  const fs::path gzip = plain.string() + ".gz";
  std::error_code ignored;
  for (const fs::path& path : {plain, gzip}) {
    if (fs::is_regular_file(path, ignored)) return path.string();
  }
  return absl::NotFoundError(absl::StrCat(plain.string(), ": not found, and ",
                                          gzip.string(), " neither"));
}

}  // namespace esper::env
