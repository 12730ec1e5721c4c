#ifndef ESPER_CLIENT_ENV_ENVIRONMENT_WORKER_H_
#define ESPER_CLIENT_ENV_ENVIRONMENT_WORKER_H_

#include <array>
#include <future>
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
//   lease -> start and open -> turns -> close -> report
//
// The environments are two halves that take turns: while the actions of one are
// on their way, the other one steps. A turn waits for its half's actions, takes
// one step in each of its episodes, and asks for the next actions of all of
// them in one call. So no episode waits for another half's network, and with a
// single environment it is plain asking and stepping. Who shares a half, or a
// process, changes no result.
//
// An episode that the server refuses (it was restarted, or the lease was taken
// away) is given up and reported as such; the others go on.
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
  // Environments by id modulo 2.
  struct Half {
    int parity = 0;
    // The call on its way, if `valid`, and whose actions it asks for. These
    // must not be removed before it has ended.
    std::future<absl::StatusOr<std::vector<ActionRow>>> call;
    std::vector<EpisodeRun*> asked;
  };

  bool Stopped() const { return stop_.stopped().HasBeenNotified(); }
  std::vector<EpisodeRun*> Running();
  std::vector<EpisodeRun*> RunningIn(const Half& half);

  // Registers again if needed; leases, starts and opens episodes for the free
  // environments.
  absl::Status Acquire();
  // Starts the environment; a lease that cannot be run is given back.
  void Start(const v1::EpisodeLease& lease, int env_id);
  absl::Status OpenStarted();

  // Steps by the actions that were asked for; without effect if none were.
  absl::Status Receive(Half& half);
  // Asks for the next actions.
  void Send(Half& half);
  // Waits for the calls on their way, and drops their answers.
  void Drain();

  absl::Status StepAll(const std::vector<EpisodeRun*>& runs,
                       const std::vector<ActionRow>& actions);
  // Closes and reports episodes that are done.
  absl::Status Finish(std::vector<EpisodeRun*> runs);
  // Of a half without a call.
  void DropRevoked(const Half& half);

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
  std::array<Half, 2> halves_;  // Last: their calls end first.
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_ENV_ENVIRONMENT_WORKER_H_
