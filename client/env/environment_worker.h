#ifndef ESPER_CLIENT_ENV_ENVIRONMENT_WORKER_H_
#define ESPER_CLIENT_ENV_ENVIRONMENT_WORKER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/env/coordinator_link.h"
#include "client/env/episode_run.h"
#include "client/env/lease_board.h"
#include "client/policy_client.h"
#include "client/stop_signal.h"
#include "core/env/task.h"
#include "core/env/vector_env.h"

namespace esper::client {

// Runs leased episodes side by side against a policy server.
//
//   lease -> start and open -> rounds -> close -> report
//
// One round asks for the actions of all running episodes in one call and takes
// one step in each. An episode that the server refuses (it was restarted, or
// the lease was taken away) is given up and reported as such; the others go on.
//
// Thread safety: `Run` once, from one thread.
class EnvironmentWorker {
 public:
  struct Options {
    int environments = 4;     // Episodes side by side, >= 1.
    std::string spec_digest;  // Of the served policy.
  };

  // All must outlive this. `task` is what the leases may ask for.
  EnvironmentWorker(const Options& options,
                    std::shared_ptr<const env::Task> task, PolicyClient& policy,
                    CoordinatorLink& link, LeaseBoard& board, StopSignal& stop);

  // Works until `stop`, or until the coordinator says that the run is over or
  // is gone; then gives up what is open. An error if the policy server is gone
  // or refuses for a reason that no episode is at fault for.
  absl::Status Run();

 private:
  bool Stopped() const { return stop_.stopped().HasBeenNotified(); }
  std::vector<EpisodeRun*> Running();

  // Registers again if needed; leases, starts and opens episodes for the free
  // environments.
  absl::Status Acquire();
  // Starts the environment; a lease that cannot be run is given back.
  void Start(const v1::EpisodeLease& lease, int env_id);
  absl::Status OpenStarted();

  absl::Status Round();
  absl::Status StepAll(const std::vector<EpisodeRun*>& runs,
                       const std::vector<ActionRow>& actions);
  // Closes and reports episodes that are done.
  absl::Status Finish(std::vector<EpisodeRun*> runs);
  void DropRevoked();

  // Gives an episode up, on the server and at the coordinator.
  void Abort(EpisodeRun& run, const std::string& reason, bool report = true);
  void AbortAll(const std::string& reason, bool report);
  // Gives up the episode that a refusal names by its row, and takes it out of
  // `runs`, the rows of the call; the refusal, if it names none.
  absl::Status AbortRefused(const absl::Status& refusal,
                            std::vector<EpisodeRun*>& runs);
  // Ends the work, since the coordinator is gone.
  void LoseCoordinator(const absl::Status& status);
  void Remove(EpisodeRun& run);

  const Options options_;
  const std::shared_ptr<const env::Task> task_;
  PolicyClient& policy_;
  CoordinatorLink& link_;
  LeaseBoard& board_;
  StopSignal& stop_;

  env::VectorEnv environments_;
  std::vector<std::unique_ptr<EpisodeRun>> runs_;  // By environment id.
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_ENV_ENVIRONMENT_WORKER_H_
