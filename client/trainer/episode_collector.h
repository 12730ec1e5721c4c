#ifndef ESPER_CLIENT_TRAINER_EPISODE_COLLECTOR_H_
#define ESPER_CLIENT_TRAINER_EPISODE_COLLECTOR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/trainer/episode_scheduler.h"
#include "esper/v1/coordinator.pb.h"

namespace esper::client {

// An episode that a worker delivered.
struct FinishedEpisode {
  Lease lease;
  int64_t policy_version = 0;  // That acted in all of its steps.
  v1::EpisodeSummary summary;
  std::vector<v1::StepReport> steps;
  v1::Trajectory trajectory;
};

// Gathers the episodes of one round: those that exactly one version of the
// policy acted in, the one that the round is for. A round is for training or
// for evaluation.
//
// Thread safety: any thread may call any method.
class EpisodeCollector {
 public:
  // Drops what is left of the round before.
  void StartRound(int64_t policy_version, bool evaluation = false)
      ABSL_LOCKS_EXCLUDED(mu_);

  // The version that acted in the episode, if it can be trained on in this
  // round. INVALID_ARGUMENT if it
  // is malformed: its end kind, or a trajectory that is missing or shorter than
  // the summary says. FAILED_PRECONDITION with reason STALE_BEHAVIOUR if
  // another version acted in a step, which is counted.
  absl::StatusOr<int64_t> Check(const v1::EpisodeSummary& summary,
                                const v1::Trajectory& trajectory)
      ABSL_LOCKS_EXCLUDED(mu_);
  // The same for an evaluation episode, which comes without a trajectory: the
  // version of the round. INVALID_ARGUMENT if it did not reach its end.
  absl::StatusOr<int64_t> CheckEvaluation(
      const v1::EpisodeSummary& summary) const ABSL_LOCKS_EXCLUDED(mu_);

  // Adds a checked episode, whose `policy_version` is what the check said. One
  // of another round is counted as stale and dropped.
  void Add(FinishedEpisode episode) ABSL_LOCKS_EXCLUDED(mu_);

  // Waits until `count` episodes are there, at most for `timeout`; how many
  // there are.
  int WaitFor(int count, absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mu_);

  // The episodes, by their numbers, so that a batch does not depend on which
  // worker was faster. Leaves none.
  std::vector<FinishedEpisode> Take() ABSL_LOCKS_EXCLUDED(mu_);

  // Refused because of their version, since the start.
  int64_t stale_episodes() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  mutable absl::Mutex mu_;
  int64_t policy_version_ ABSL_GUARDED_BY(mu_) = 0;
  bool evaluation_ ABSL_GUARDED_BY(mu_) = false;
  int64_t stale_episodes_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<FinishedEpisode> episodes_ ABSL_GUARDED_BY(mu_);
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_TRAINER_EPISODE_COLLECTOR_H_
