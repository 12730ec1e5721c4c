#ifndef ESPER_CLIENT_TRAINER_TRAINER_H_
#define ESPER_CLIENT_TRAINER_TRAINER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "client/trainer/coordinator_service.h"
#include "client/trainer/episode_collector.h"
#include "client/trainer/episode_scheduler.h"
#include "client/trainer/policy_learner.h"
#include "client/trainer/progress.h"
#include "client/trainer/run_directory.h"

namespace esper::client {

// Synchronous training: rounds of episodes, each followed by one update.
//
//   Prepare -> StartRound -> collect -> EndRound -> Update -> (checkpoint) ->
//   (evaluation) -> ...
//
// While a round is collected the policy does not change, so all of its episodes
// are of one version. A round ends when all its episodes are in, or after
// `collect_deadline` with at least `min_episodes`; what is still out is taken
// back, and runs again in the next round under the new version.
//
// Thread safety: `Run` once, from one thread.
class Trainer {
 public:
  struct Options {
    int episodes_per_update = 8;  // >= 1.
    int min_episodes = 4;         // In [1, episodes_per_update].
    absl::Duration collect_deadline = absl::Minutes(5);
    UpdateOptions update;
    int checkpoint_every = 10;    // Updates; 0: only at the end.
    int evaluation_every = 0;     // Updates; 0: never.
    int evaluation_episodes = 4;  // >= 1.
    // One evaluation of the published policy instead of training.
    bool evaluate_only = false;
    int64_t max_updates = 0;      // Of this process; 0: no limit.
    absl::Duration max_time = absl::InfiniteDuration();
    // Workers to wait for before the first round, for at most a minute.
    int workers = 1;
    // How long to wait for a policy server that is gone.
    absl::Duration server_patience = absl::Minutes(2);
  };

  // All must outlive this. `stop` asks to end after the call in progress.
  Trainer(const Options& options, EpisodeScheduler& scheduler,
          EpisodeCollector& collector, PolicyLearner& learner,
          RunDirectory& directory, Progress& progress,
          const CoordinatorService& service, const absl::Notification& stop);

  // Trains until a limit or `stop`, then saves a checkpoint, gives up the lease
  // and completes the summary, also when it fails. The first error that ended
  // it: the server's, or three updates in a row that it refused. With
  // `evaluate_only` nothing is trained and no checkpoint is saved; UNAVAILABLE
  // if no episode came in.
  absl::Status Run();

 private:
  absl::Status Train();
  absl::Status EvaluateOnly();
  // True once the run should end: asked to, out of time, or enough updates.
  bool Finished() const;
  bool Stopped() const { return stop_.HasBeenNotified(); }
  void WaitForWorkers();
  // The published version, waiting for a server that is away.
  absl::StatusOr<int64_t> PrepareLearner();
  // The episodes of a round for this version; none if the server is at another
  // one meanwhile. An evaluation is not cut short by the limits of the run.
  std::vector<FinishedEpisode> CollectRound(int64_t version,
                                            bool evaluation = false);
  // A round of evaluation episodes under the published version. No evaluation
  // if the server is away.
  absl::Status Evaluate();
  // Whether the server is still there with this version and our lease.
  bool Confirm(int64_t version);
  // What has to happen again and again while waiting.
  void Tick(int collected);
  // One update with these episodes of `version`, which are dropped if the
  // server refuses them.
  absl::Status UpdatePolicy(int64_t version,
                            const std::vector<FinishedEpisode>& episodes,
                            double collect_seconds);
  // Unless the newest one is up to date.
  absl::Status SaveCheckpoint();
  absl::Status End();
  absl::Status WriteCounters(bool finished);
  RunPosition Position(const RunTotals& totals, int collected) const;

  const Options options_;
  EpisodeScheduler& scheduler_;
  EpisodeCollector& collector_;
  PolicyLearner& learner_;
  RunDirectory& directory_;
  Progress& progress_;
  const CoordinatorService& service_;
  const absl::Notification& stop_;

  absl::Time start_;           // Of training, after set-up.
  RunTotals at_start_;         // What earlier processes did.
  int64_t updates_ = 0;        // Made by this process.
  int failures_in_a_row_ = 0;  // Refused updates.
  int updates_since_checkpoint_ = 0;
  int updates_since_evaluation_ = 0;
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_TRAINER_TRAINER_H_
