#ifndef ESPER_CLIENT_ACTION_LOG_H_
#define ESPER_CLIENT_ACTION_LOG_H_

#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "esper/log/action_log.pb.h"

// Files of what a client asked and was told (proto/esper/log/action_log.proto):
// enough to take the same steps again and compare (client/replay.h).
namespace esper::client {

// Appends records to a file. Each is handed to the system before the call
// returns, so a client that crashes loses none.
//
// Thread safety: any thread may call any method; records do not mix.
class ActionLogWriter {
 public:
  // A new file. ALREADY_EXISTS if there is one: logs are never overwritten;
  // UNAVAILABLE if it cannot be made.
  static absl::StatusOr<std::unique_ptr<ActionLogWriter>> Create(
      const std::string& path);
  ~ActionLogWriter();

  ActionLogWriter(const ActionLogWriter&) = delete;
  ActionLogWriter& operator=(const ActionLogWriter&) = delete;

  // UNAVAILABLE, naming the file, if a record cannot be written; the file ends
  // there, and every later call fails as well.
  absl::Status Opened(const v1::OpenEpisodesRequest& request,
                      const v1::OpenEpisodesResponse& response);
  absl::Status Acted(const v1::GetActionRequest& request,
                     const v1::GetActionResponse& response);
  absl::Status Closed(const v1::CloseEpisodesRequest& request,
                      const v1::CloseEpisodesResponse& response);

 private:
  ActionLogWriter(const std::string& path, std::FILE* file);

  // Writes the file's header first if there is none yet.
  absl::Status Append(const v1::ResponseHeader& server,
                      const log::ActionLogRecord& record)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Write(const log::ActionLogRecord& record)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::string path_;
  std::FILE* const file_;
  absl::Mutex mu_;
  bool begun_ ABSL_GUARDED_BY(mu_) = false;
  bool broken_ ABSL_GUARDED_BY(mu_) = false;
};

// Reads such a file from its start. Not thread-safe.
class ActionLogReader {
 public:
  // NOT_FOUND if it cannot be read; DATA_LOSS if it does not begin with a
  // header of format 1.
  static absl::StatusOr<std::unique_ptr<ActionLogReader>> Open(
      const std::string& path);
  ~ActionLogReader();

  ActionLogReader(const ActionLogReader&) = delete;
  ActionLogReader& operator=(const ActionLogReader&) = delete;

  const log::ActionLogHeader& header() const { return header_; }
  // Nothing at the end of the file; DATA_LOSS, naming the record, for one that
  // does not parse.
  absl::StatusOr<std::optional<log::ActionLogRecord>> Next();
  // The file ended inside a record, which is left out.
  bool cut_off() const { return cut_off_; }

 private:
  ActionLogReader(const std::string& path, std::FILE* file);

  const std::string path_;
  std::FILE* const file_;
  log::ActionLogHeader header_;
  int64_t records_ = 0;
  bool cut_off_ = false;
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_ACTION_LOG_H_
