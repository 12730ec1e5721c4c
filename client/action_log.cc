#include "client/action_log.h"

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace esper::client {
namespace {

constexpr uint32_t kFormat = 1;
// No call is larger than what gRPC carries.
constexpr uint64_t kMaxRecordBytes = uint64_t{1} << 30;

void AppendVarint(uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) {
    out->push_back(static_cast<char>(value | 0x80));
  }
  out->push_back(static_cast<char>(value));
}

}  // namespace

ActionLogWriter::ActionLogWriter(const std::string& path, std::FILE* file)
    : path_(path), file_(file) {}

ActionLogWriter::~ActionLogWriter() { std::fclose(file_); }

absl::StatusOr<std::unique_ptr<ActionLogWriter>> ActionLogWriter::Create(
    const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "wbx");
  if (file == nullptr && errno == EEXIST) {
    return absl::AlreadyExistsError(absl::StrCat(
        "The action log ", path, " is there already; choose another name."));
  }
  if (file == nullptr) {
    return absl::UnavailableError(absl::StrCat(
        "Cannot write the action log ", path, ": ", std::strerror(errno)));
  }
  return std::unique_ptr<ActionLogWriter>(new ActionLogWriter(path, file));
}

absl::Status ActionLogWriter::Opened(const v1::OpenEpisodesRequest& request,
                                     const v1::OpenEpisodesResponse& response) {
  log::ActionLogRecord record;
  *record.mutable_opened()->mutable_request() = request;
  *record.mutable_opened()->mutable_response() = response;
  return Append(response.header(), record);
}

absl::Status ActionLogWriter::Acted(const v1::GetActionRequest& request,
                                    const v1::GetActionResponse& response) {
  log::ActionLogRecord record;
  *record.mutable_steps()->mutable_request() = request;
  *record.mutable_steps()->mutable_response() = response;
  return Append(response.header(), record);
}

absl::Status ActionLogWriter::Closed(
    const v1::CloseEpisodesRequest& request,
    const v1::CloseEpisodesResponse& response) {
  log::ActionLogRecord record;
  *record.mutable_closed()->mutable_request() = request;
  *record.mutable_closed()->mutable_response() = response;
  return Append(response.header(), record);
}

absl::Status ActionLogWriter::Append(const v1::ResponseHeader& server,
                                     const log::ActionLogRecord& record) {
  absl::MutexLock lock(&mu_);
  if (!begun_) {
    log::ActionLogRecord header;
    header.mutable_header()->set_format(kFormat);
    *header.mutable_header()->mutable_server() = server;
    const absl::Status written = Write(header);
    if (!written.ok()) return written;
    begun_ = true;
  }
  return Write(record);
}

absl::Status ActionLogWriter::Write(const log::ActionLogRecord& record) {
  std::string bytes;
  AppendVarint(record.ByteSizeLong(), &bytes);
  record.AppendToString(&bytes);
  if (!broken_) {
    broken_ =
        std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size() ||
        std::fflush(file_) != 0;
  }
  if (!broken_) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("The action log ", path_,
                   " cannot be written on: ", std::strerror(errno)));
}

ActionLogReader::ActionLogReader(const std::string& path, std::FILE* file)
    : path_(path), file_(file) {}

ActionLogReader::~ActionLogReader() { std::fclose(file_); }

absl::StatusOr<std::unique_ptr<ActionLogReader>> ActionLogReader::Open(
    const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) {
    return absl::NotFoundError(absl::StrCat("Cannot read the action log ", path,
                                            ": ", std::strerror(errno)));
  }
  std::unique_ptr<ActionLogReader> reader(new ActionLogReader(path, file));
  const auto first = reader->Next();
  if (!first.ok()) return first.status();
  if (!first->has_value() || (*first)->header().format() != kFormat) {
    return absl::DataLossError(
        absl::StrCat(path, " is no action log of format ", kFormat, "."));
  }
  reader->header_ = (*first)->header();
  return reader;
}

absl::StatusOr<std::optional<log::ActionLogRecord>> ActionLogReader::Next() {
  const auto damaged = [this] {
    return absl::DataLossError(
        absl::StrCat("Record ", records_, " of ", path_, " is damaged."));
  };
  uint64_t size = 0;
  for (int shift = 0;; shift += 7) {
    const int byte = std::fgetc(file_);
    if (byte == EOF) {
      cut_off_ = shift > 0;
      return std::nullopt;
    }
    if (shift > 28) return damaged();
    size |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if ((byte & 0x80) == 0) break;
  }
  if (size > kMaxRecordBytes) return damaged();
  std::string bytes(size, '\0');
  if (std::fread(bytes.data(), 1, size, file_) != size) {
    cut_off_ = true;
    return std::nullopt;
  }
  log::ActionLogRecord record;
  if (!record.ParseFromString(bytes) ||
      record.record_case() == log::ActionLogRecord::RECORD_NOT_SET) {
    return damaged();
  }
  ++records_;
  return record;
}

}  // namespace esper::client
