#ifndef ESPER_SERVER_CHECKPOINT_STORE_H_
#define ESPER_SERVER_CHECKPOINT_STORE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace esper::server {

// What a checkpoint is, apart from its files.
struct CheckpointInfo {
  std::string name;
  int64_t policy_version = 0;
  int64_t optimizer_steps = 0;
  std::string spec_digest;
  int64_t lease_token = 0;  // Highest learner token given when it was made.
  // SHA-256 of the published weights, hex; empty in older checkpoints.
  std::string weights_digest;
  int64_t saved_at_nanos = 0;  // Unix time.
  int64_t size_bytes = 0;      // Of all files.
  // The name was not chosen by a caller: removed when newer ones of its kind
  // have come.
  bool automatic = false;
};

struct Checkpoint {
  CheckpointInfo info;
  std::map<std::string, std::string> files;  // File name to content.
};

// A folder of checkpoints. Each is a folder of its own with a `manifest.json`
// that gives the size and SHA-256 of every file in it. A checkpoint is written
// aside, flushed to the disk and then renamed, so that whatever happens there
// is a whole one or none; names from the wire never reach the file system
// unchecked.
//
// Thread safety: calls may come from any thread, but not two `Save` at a time.
class CheckpointStore {
 public:
  // `root` is created when the first checkpoint is saved. Empty: every call is
  // refused with FAILED_PRECONDITION. The newest `keep_automatic` (>= 1)
  // automatic checkpoints are kept, and all that were named.
  explicit CheckpointStore(std::string root, int keep_automatic = 5);

  // Writes a checkpoint; one of the same name is replaced. Fills in
  // `saved_at_nanos` and `size_bytes` and returns the info.
  // INVALID_ARGUMENT (MALFORMED_REQUEST) for a name that is not 1 to 64
  // letters, digits, '.', '_' and '-', or starts with a dot; INTERNAL with the
  // system's words if the files cannot be written.
  absl::StatusOr<CheckpointInfo> Save(Checkpoint checkpoint);

  // Reads and verifies a checkpoint; the empty name or "latest" is the newest.
  // NOT_FOUND (UNKNOWN_CHECKPOINT); DATA_LOSS (CORRUPT_CHECKPOINT) naming the
  // file that is missing, truncated or changed.
  absl::StatusOr<Checkpoint> Load(const std::string& name) const;

  // What is there, oldest first. Folders without a readable manifest are left
  // out.
  std::vector<CheckpointInfo> List() const;

  // Removes a checkpoint, whole or not at all. NOT_FOUND (UNKNOWN_CHECKPOINT);
  // INTERNAL with the system's words.
  absl::Status Remove(const std::string& name);

  // Whether `Save` takes the name.
  static bool IsName(const std::string& name);

 private:
  absl::Status CheckConfigured() const;
  void RemoveOldAutomatic();

  const std::string root_;
  const int keep_automatic_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_CHECKPOINT_STORE_H_
