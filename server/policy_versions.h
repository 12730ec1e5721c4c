#ifndef ESPER_SERVER_POLICY_VERSIONS_H_
#define ESPER_SERVER_POLICY_VERSIONS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "core/ppo/learner.h"
#include "server/checkpoint_store.h"
#include "server/number_log.h"
#include "server/policy_store.h"
#include "server/version_history.h"

namespace esper::server {

// The life of policy versions: gives them numbers, lets them act, remembers
// what they were, and goes back to them. One rule holds throughout, over kills
// and restarts that share a checkpoint folder: a version number is never used
// for other weights.
//
// The learner as it was at a publish is kept in memory for the newest versions
// (weights and the two moments of each: three times the size of the policy),
// and as a checkpoint in the folder `.versions` for those with a label.
//
// Thread safety: `List` may be called from any thread; the rest, from `Start`
// on, on the learner's thread only.
class PolicyVersions {
 public:
  struct Options {
    std::string folder;  // Of the checkpoints; empty: nothing outlives this.
    int keep = 4;        // Newest versions in memory, the acting one too; >= 2.
  };

  // `policies` must outlive this.
  PolicyVersions(const Options& options, PolicyStore& policies);

  // Reads what earlier processes left. DATA_LOSS (CORRUPT_CHECKPOINT).
  absl::Status Open();

  // Lets the first version of a learner act: `restored` from a checkpoint, or
  // of weights that are new, and get a number that is new as well.
  absl::Status Start(ppo::Learner& learner, bool restored);
  // Makes a version of the learner's weights and lets it act. INTERNAL if its
  // number cannot be kept.
  absl::Status Publish(ppo::Learner& learner);
  // Lets the published version of a restored learner act under its number; or
  // under a new one if its own is known to mean other weights, as in a
  // checkpoint that was copied here from another server.
  absl::Status Restored(ppo::Learner& learner);

  // Makes the learner what it was when `version` was published, and lets that
  // act under a new number. FAILED_PRECONDITION (UNKNOWN_VERSION) if it is not
  // kept; DATA_LOSS if what was kept is damaged; the learner is then unchanged.
  absl::Status RollBack(int64_t version, ppo::Learner& learner);
  // The version that a name stands for: "current", "previous" or a label.
  absl::StatusOr<int64_t> Resolve(const std::string& label) const;

  // Labels as the wire has them (policy_admin.proto). `version` 0: the acting.
  absl::Status SetLabel(const std::string& label, int64_t version,
                        const policy::PolicySpec& spec);
  absl::Status RemoveLabel(const std::string& label, int64_t version);

  // A number for weights that are kept and do not act yet.
  absl::StatusOr<int64_t> TakeNumber(const ppo::Learner& learner) {
    return numbers_.Take(learner.policy_version());
  }

  VersionHistory::State List() const { return history_.Read(); }
  // The versions that `RollBack` can go to.
  std::set<int64_t> Kept() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  absl::Status Act(ppo::Learner& learner, int64_t rolled_back_to = 0);
  absl::StatusOr<ppo::LearnerState> Load(int64_t version) const;
  // Writes a version to the disk, or removes it there, as its labels ask for.
  absl::Status Pin(int64_t version, const policy::PolicySpec& spec);
  void MaybeUnpin(int64_t version);

  const Options options_;
  PolicyStore& policies_;
  NumberLog numbers_;
  VersionHistory history_;
  CheckpointStore pinned_;

  mutable absl::Mutex mu_;
  // As they were published.
  std::map<int64_t, std::shared_ptr<const ppo::LearnerState>> states_
      ABSL_GUARDED_BY(mu_);
  // On the disk.
  std::set<int64_t> pinned_versions_ ABSL_GUARDED_BY(mu_);
};

}  // namespace esper::server
#endif  // ESPER_SERVER_POLICY_VERSIONS_H_
