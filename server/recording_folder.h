#ifndef ESPER_SERVER_RECORDING_FOLDER_H_
#define ESPER_SERVER_RECORDING_FOLDER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "esper/v1/trajectory.pb.h"

namespace esper::server {

// Recordings on disk: one file each, named by the episode's id
// (proto/recording/recording_file.h), written aside, flushed and renamed.
//
// Thread safety: any thread may call any method, for one recording one at a
// time.
class RecordingFolder {
 public:
  // `path` is created by `Open`. Empty: there is no folder, and only `Open` and
  // `enabled` may be called.
  explicit RecordingFolder(std::string path);

  bool enabled() const { return !path_.empty(); }
  const std::string& path() const { return path_; }

  // What lies there, oldest first. A file that is damaged is left where it is,
  // logged, and not among them. INTERNAL if the folder cannot be made or read.
  absl::StatusOr<std::vector<v1::RecordingInfo>> Open() const;

  // On the disk when it returns. INTERNAL with the system's words.
  absl::Status Write(const v1::Recording& recording) const;
  // CORRUPT_RECORDING if the file is damaged or gone.
  absl::StatusOr<v1::Recording> Read(const std::string& episode_id) const;
  // What is not there any more is no error.
  absl::Status Remove(const std::vector<std::string>& episode_ids) const;

 private:
  std::string FileOf(const std::string& episode_id) const;

  const std::string path_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_RECORDING_FOLDER_H_
