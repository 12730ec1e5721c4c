#ifndef ESPER_SERVER_RECORDING_STORE_H_
#define ESPER_SERVER_RECORDING_STORE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>  // NOLINT: joined in `Flush`.
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "core/policy/policy_spec.h"
#include "esper/v1/policy_admin.pb.h"
#include "esper/v1/trajectory.pb.h"
#include "server/recording.h"
#include "server/recording_folder.h"

namespace esper::server {

// What happens when the memory for recordings is used up.
enum class RecordingOverflow {
  kRefuse,  // Openings and steps are refused.
  kSpill,   // Ended recordings are written to the folder, and leave the memory.
};

// "refuse" or "spill"; INVALID_ARGUMENT for anything else.
absl::StatusOr<RecordingOverflow> ParseRecordingOverflow(
    const std::string& name);

struct RecordingOptions {
  int64_t max_bytes = int64_t{1} << 30;  // Of memory, > 0.
  RecordingOverflow overflow = RecordingOverflow::kRefuse;
  // Of recordings on disk; needed to spill. Ended recordings are written into
  // it when the server drains, and found again when it starts.
  std::string folder;
};

// The recordings of a server: those being made, and those that have ended and
// wait to be trained on and discarded.
//
// Memory is taken in blocks of steps, before a step is computed. If there is
// none, the step or the opening is refused: BUDGET_EXCEEDED, or QUEUE_FULL
// (retryable) while recordings that can leave the memory are on their way to
// the disk. To make room, these leave the memory, oldest first, and nothing
// else does:
//   - recordings that are on the disk (which stay readable from there);
//   - without spilling, incomplete recordings; they are then gone, counted as
//     evicted and logged.
// A complete recording is forgotten by `Discard` alone.
//
// When spilling, every ended recording is written soon after its end by a
// thread of its own; if the disk fails, it stays in memory and is tried again.
//
// Thread safety: any thread may call any method. No file is touched under the
// lock.
class RecordingStore {
 public:
  // Finds what lies in the folder. INVALID_ARGUMENT for spilling without a
  // folder or a budget that holds no recording; INTERNAL if the folder cannot
  // be read. `precision`: of the policies that act.
  static absl::StatusOr<std::unique_ptr<RecordingStore>> Create(
      const RecordingOptions& options, const policy::PolicySpec& spec,
      v1::InferencePrecision precision);

  // As `Flush`.
  ~RecordingStore();

  RecordingStore(const RecordingStore&) = delete;
  RecordingStore& operator=(const RecordingStore&) = delete;

  // `expire` ends the episodes whose lease has run out, so that `List` and
  // `Discard` know of their recordings. Before the first call of either.
  void set_expire(std::function<void()> expire) { expire_ = std::move(expire); }

  // Begins a recording for each start that wants one, with room for a step;
  // null for the others. All or none. Errors: as above, naming the budget.
  absl::StatusOr<std::vector<std::shared_ptr<Recording>>> Open(
      const std::vector<std::string>& ids,
      const std::vector<EpisodeStart>& starts) ABSL_LOCKS_EXCLUDED(mu_);
  // Makes room for one more step of row `row` of a call. Errors: as above.
  absl::Status MakeRoom(Recording* recording, int64_t row)
      ABSL_LOCKS_EXCLUDED(mu_);
  // Takes a recording whose episode has ended. One without steps leaves
  // nothing but its count.
  void Finish(std::shared_ptr<const Recording> recording,
              const RecordingEnd& end) ABSL_LOCKS_EXCLUDED(mu_);

  // An ended recording. UNKNOWN_EPISODE; INCOMPLETE_RECORDING while it is being
  // made; CORRUPT_RECORDING. `row`: goes into errors.
  absl::StatusOr<v1::Recording> Read(const std::string& id,
                                     int64_t row = -1) const
      ABSL_LOCKS_EXCLUDED(mu_);

  struct Page {
    std::vector<v1::RecordingInfo> recordings;
    int64_t next = 0;  // For `after`; 0: there are no more.
  };
  // At most `limit` (>= 1) ended recordings of this state (unspecified: any)
  // behind `after`, oldest first.
  Page List(v1::RecordingState state, int64_t after, int limit) const
      ABSL_LOCKS_EXCLUDED(mu_);

  // Forgets ended recordings; how many there were. Ids that are unknown are
  // passed over. INTERNAL if a file cannot be removed: it may come back when
  // the server starts again.
  absl::StatusOr<int64_t> Discard(const std::vector<std::string>& ids,
                                  bool all_incomplete) ABSL_LOCKS_EXCLUDED(mu_);

  // Writes what has ended to the folder, if there is one, logs what could not
  // be kept, and stops the thread. For the end of the server; once.
  void Flush() ABSL_LOCKS_EXCLUDED(mu_);

  v1::RecordingStatus Status() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // An ended recording.
  struct Entry {
    v1::RecordingInfo info;
    RecordingEnd end;
    std::shared_ptr<const Recording> memory;  // Null if on disk alone.
    bool on_disk = false;
  };
  using Entries = std::map<int64_t, Entry>;  // By number: oldest first.

  RecordingStore(const RecordingOptions& options,
                 const policy::PolicySpec& spec,
                 v1::InferencePrecision precision);

  absl::Status FindOnDisk() ABSL_LOCKS_EXCLUDED(mu_);
  // Takes so much of the budget, if need be from ended recordings.
  absl::Status TakeLocked(int64_t bytes, int64_t row)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Frees the memory of one recording that may go. False: there is none.
  bool EvictLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  int64_t AddLocked(Entry entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EraseLocked(Entries::iterator it) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Entries::iterator FindLocked(const std::string& id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  v1::Recording ToMessage(const Entry& entry) const;

  void WriteLoop() ABSL_LOCKS_EXCLUDED(mu_);
  // Writes the oldest recording that waits. False if that failed.
  bool WriteOne() ABSL_LOCKS_EXCLUDED(mu_);
  void StopWriting() ABSL_LOCKS_EXCLUDED(mu_);
  bool CanWriteOrStop() const ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return stopping_ || !to_write_.empty();
  }

  const RecordingOptions options_;
  const RecordingLayout layout_;
  const std::string spec_digest_;
  const v1::InferencePrecision precision_;
  const RecordingFolder folder_;
  std::function<void()> expire_ = [] {};

  mutable absl::Mutex mu_;
  int64_t bytes_ ABSL_GUARDED_BY(mu_) = 0;  // Of `options_.max_bytes`.
  absl::flat_hash_set<std::string> open_ ABSL_GUARDED_BY(mu_);
  Entries ended_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<std::string, int64_t> number_of_ ABSL_GUARDED_BY(mu_);
  int64_t last_number_ ABSL_GUARDED_BY(mu_) = 0;
  std::set<int64_t> evictable_ ABSL_GUARDED_BY(mu_);  // Numbers.
  // Ids; the one in front is being written. Those that are gone meanwhile are
  // passed over.
  std::deque<std::string> to_write_ ABSL_GUARDED_BY(mu_);
  bool disk_fails_ ABSL_GUARDED_BY(mu_) = false;
  v1::RecordingStatus counts_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread writer_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_RECORDING_STORE_H_
