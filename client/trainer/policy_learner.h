#ifndef ESPER_CLIENT_TRAINER_POLICY_LEARNER_H_
#define ESPER_CLIENT_TRAINER_POLICY_LEARNER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/admin_client.h"
#include "client/policy_client.h"
#include "client/trainer/policy_update.h"
#include "client/training_client.h"

namespace esper::client {

// The one learner of a policy server: holds the lease, makes updates and
// checkpoints.
//
// Thread safety: none.
class PolicyLearner {
 public:
  // Fills in the clients over one channel. `holder` names this process's run,
  // so that it can take its own lease again. `expected`: what the server's
  // learner must have been built with; fields that are not set may be anything.
  PolicyLearner(std::unique_ptr<PolicyClient> policy,
                std::unique_ptr<TrainingClient> training,
                std::unique_ptr<AdminClient> admin, std::string holder,
                v1::LearnerConfig expected = {});

  // Takes the lease if it is not held, and returns the published version. If
  // that is older than the newest checkpoint of the run, the server has lost
  // its state, and the checkpoint is restored first; that ends every lease, so
  // it is taken again. If an update failed half-way, the steps that it took are
  // published first, so that acting and training agree again.
  // FAILED_PRECONDITION, naming the first setting, if the server's learner was
  // built with others than expected.
  absl::StatusOr<int64_t> Prepare(absl::Time now);

  // Renews the lease if a third of it has passed. A lease that is lost, or a
  // server that does not answer, is left to `Prepare`: false.
  bool KeepLease(absl::Time now);
  // The same, at once.
  bool RenewLease(absl::Time now);

  // One PPO update (PolicyUpdate) and one publish at its end. Errors are the
  // server's; the published policy is then unchanged until `Prepare`.
  absl::StatusOr<UpdateReport> Update(
      const std::vector<FinishedEpisode>& episodes,
      const UpdateOptions& options);

  // A checkpoint of the server, and the version that it publishes.
  struct Checkpoint {
    std::string name;  // Empty: none.
    int64_t version = 0;
  };
  absl::StatusOr<Checkpoint> SaveCheckpoint();
  // The newest one that the run made before this process.
  void set_checkpoint(Checkpoint checkpoint) {
    checkpoint_ = std::move(checkpoint);
  }

  absl::Status Release();

 private:
  // Takes the lease unless it is held.
  absl::Status TakeLease(absl::Time now);
  absl::Status Publish(UpdateReport& report);

  const std::unique_ptr<PolicyClient> policy_;
  const std::unique_ptr<TrainingClient> training_;
  const std::unique_ptr<AdminClient> admin_;
  const std::string holder_;
  const v1::LearnerConfig expected_;

  absl::Duration lease_ = absl::Seconds(30);
  absl::Time renewed_ = absl::InfinitePast();
  Checkpoint checkpoint_;  // Newest of the run.
  // Version that an update began with which may have taken steps and has not
  // published them; 0: none.
  int64_t unfinished_update_of_ = 0;
  int64_t version_ = 0;  // That `Prepare` found, or the last update made.
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_TRAINER_POLICY_LEARNER_H_
