#ifndef ESPER_SERVER_VERSION_HISTORY_H_
#define ESPER_SERVER_VERSION_HISTORY_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace esper::server {

// What is known of one published version for as long as it is remembered.
struct VersionRecord {
  int64_t version = 0;
  int64_t published_at_nanos = 0;  // Unix time, of the first publish.
  int64_t optimizer_steps = 0;     // Taken by its weights, ever.
  std::string weights_digest;      // SHA-256, hex.
  bool bf16 = false;               // Products when it acted.
  int64_t rolled_back_to = 0;      // The version it is a rollback to; 0: none.
};

// The published versions and their labels, in the file `versions.json` of the
// checkpoint folder: what a number meant is known to the processes that come
// after. All versions with a label are remembered, and the newest others.
//
// Thread safety: any thread may call any method.
class VersionHistory {
 public:
  struct State {
    std::map<int64_t, VersionRecord> records;  // By version.
    std::map<std::string, int64_t> labels;     // Of callers, to version.
    std::set<int64_t> frozen;
    int64_t current = 0;   // Acts; 0: none yet.
    int64_t previous = 0;  // Acted before it; 0: none.

    bool IsLabelled(int64_t version) const;
    // "current", "previous", "frozen", then those of callers.
    std::vector<std::string> LabelsOf(int64_t version) const;
  };

  // Empty: nothing is kept beyond this process. Of versions without a label the
  // newest `remembered` (>= 2) stay.
  explicit VersionHistory(std::string folder, int remembered = 256);

  // Reads what is there. DATA_LOSS (CORRUPT_CHECKPOINT) if it does not parse.
  absl::Status Open() ABSL_LOCKS_EXCLUDED(mu_);

  State Read() const ABSL_LOCKS_EXCLUDED(mu_);

  // A version begins to act, or acts again. On the disk when this returns.
  // DATA_LOSS (CORRUPT_CHECKPOINT) if its number is known to mean other
  // weights; INTERNAL if it cannot be written. Nothing changes on an error.
  absl::Status NoteActing(const VersionRecord& record) ABSL_LOCKS_EXCLUDED(mu_);
  // Whether the number is known to mean other weights than these.
  bool MeansOthers(int64_t version, const std::string& weights_digest) const
      ABSL_LOCKS_EXCLUDED(mu_);

  // `version` must be remembered. Errors as above.
  absl::Status SetLabel(const std::string& label, int64_t version)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status RemoveLabel(const std::string& label) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status SetFrozen(int64_t version, bool frozen) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // Writes `next`, then makes it the state.
  absl::Status Replace(State next) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::string folder_;
  const int remembered_;

  mutable absl::Mutex mu_;
  State state_ ABSL_GUARDED_BY(mu_);
};

}  // namespace esper::server
#endif  // ESPER_SERVER_VERSION_HISTORY_H_
