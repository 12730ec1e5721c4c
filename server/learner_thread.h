#ifndef ESPER_SERVER_LEARNER_THREAD_H_
#define ESPER_SERVER_LEARNER_THREAD_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "core/ppo/learner.h"
#include "esper/v1/policy_training.pb.h"
#include "google/protobuf/message_lite.h"
#include "server/clock.h"
#include "server/learner_lease.h"
#include "server/number_log.h"
#include "server/policy_store.h"
#include "server/policy_versions.h"
#include "server/training_executor.h"

namespace esper::server {

// What the learner has come to; a copy taken after each piece of work.
struct LearnerStatus {
  int64_t policy_version = 0;
  int64_t optimizer_steps = 0;
  int64_t transitions_trained = 0;
  // Largest ratio check of the last pass that made one; negative before.
  double ratio_check_max = -1;
  int64_t ratio_alarms = 0;  // Passes whose ratio check was above the limit.
  // Versions that the steps of the last pass were behind, on average; negative
  // before.
  double version_lag = -1;
  int64_t unpublished_steps = 0;
};

// The learner, together with the one thread that may touch it, the lease that
// says who may write to it, and the store that its versions go to.
//
// Thread safety: any thread may call any method.
class LearnerThread {
 public:
  struct Options {
    int max_queued = 64;  // Pieces of work that wait.
    LearnerLease::Options lease;
  };
  using Work = std::function<absl::Status(ppo::Learner&)>;
  using Done = std::function<void(const absl::Status&)>;

  // All references must outlive this; `policies` holds the learner's published
  // version already. `tokens` gives out the tokens of the lease.
  LearnerThread(std::unique_ptr<ppo::Learner> learner, PolicyStore& policies,
                PolicyVersions& versions, NumberLog& tokens,
                const Options& options, Clock clock);

  // Runs `work` on the learner's thread, then `done` with its status; what it
  // throws becomes a status. `done` is called exactly once, at once with
  // UNAVAILABLE if the queue is full or draining.
  void Run(Work work, Done done);

  // Runs `work`, which fills `response`, as the write that `write` names: only
  // under the current lease, and once per sequence number. A repeated number
  // fills `response` with the stored answer. The response's type is the name of
  // the call; it must live until `done`.
  void Write(const v1::LearnerWrite& write,
             google::protobuf::MessageLite* response, Work work, Done done);

  // On the learner's thread only: the same, at once.
  absl::Status WriteNow(ppo::Learner& learner, const v1::LearnerWrite& write,
                        google::protobuf::MessageLite* response,
                        const Work& work);

  // Frees what belongs to the learner's thread; never refused.
  void RunCleanup(std::function<void()> work);

  // On the learner's thread only: makes a version of the learner's weights,
  // under a number that was never given out, and lets it act.
  absl::Status Publish(ppo::Learner& learner);
  // On the learner's thread only: notes what a pass found.
  void NotePass(const ppo::ForwardBackwardReport& report);

  LearnerLease& lease() { return lease_; }
  PolicyStore& policies() { return policies_; }
  PolicyVersions& versions() { return versions_; }
  LearnerStatus Status() const ABSL_LOCKS_EXCLUDED(mu_);

  // Refuses new work and returns when what was accepted is done.
  void Drain() { executor_.Drain(); }

 private:
  // Runs `work` with errors caught and the status copied.
  absl::Status Execute(const Work& work) ABSL_LOCKS_EXCLUDED(mu_);

  PolicyStore& policies_;
  PolicyVersions& versions_;
  LearnerLease lease_;
  std::unique_ptr<ppo::Learner> learner_;  // Touched by `executor_` only.

  mutable absl::Mutex mu_;
  LearnerStatus status_ ABSL_GUARDED_BY(mu_);

  TrainingExecutor executor_;  // Last: its thread uses all of the above.
};

}  // namespace esper::server
#endif  // ESPER_SERVER_LEARNER_THREAD_H_
