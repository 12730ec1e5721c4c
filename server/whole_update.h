#ifndef ESPER_SERVER_WHOLE_UPDATE_H_
#define ESPER_SERVER_WHOLE_UPDATE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/ppo/learner.h"
#include "esper/v1/policy_training.pb.h"
#include "server/learner_calls.h"

namespace esper::server {

// What a call of UpdatePolicy asks for.
struct UpdatePlan {
  ppo::PassOptions loss;  // Its scope is the update's to set.
  ppo::OptimStepOptions step;
  int64_t passes = 3;       // >= 1.
  int64_t minibatches = 1;  // >= 1; at most one per row is made.
  uint64_t seed = 0;        // Of the division into minibatches.
};

// MALFORMED_REQUEST naming the field for a value outside its range.
absl::StatusOr<UpdatePlan> DecodeUpdatePlan(
    const v1::UpdatePolicyRequest& request);

// One whole update: the passes and steps that a coordinator would make by
// single calls (client/trainer/policy_update.h), in the same order and with the
// same numbers, and one publish at the end. It ends early, and publishes what
// it has, when the divergence stops it.
//
// Used once, on the learner's thread.
class WholeUpdate {
 public:
  struct Hooks {
    // Asked before each minibatch and before the publish; what is not OK ends
    // the update with that status.
    std::function<absl::Status()> proceed;
    // Told after each minibatch.
    std::function<void(v1::UpdateProgress)> progress;
  };

  // All must outlive this; `plan` is valid.
  WholeUpdate(LearnerCalls& calls, ppo::Learner& learner,
              const UpdatePlan& plan, const Hooks& hooks);

  // Fills `result`. After an error the learner is what it was before, and
  // nothing was published.
  absl::Status Run(const std::vector<ppo::Trajectory>& rows,
                   v1::UpdateResult* result);

 private:
  // What a pass leads to.
  enum class Next { kStep, kSkip, kEnd };
  // Where a pass is in the update.
  struct Place {
    int64_t pass;
    int64_t minibatch;
  };

  absl::Status RunAndPublish(const std::vector<ppo::Trajectory>& rows);
  absl::Status RunWhole(absl::Span<const ppo::Trajectory> rows);
  absl::Status RunMinibatches(const std::vector<ppo::Trajectory>& rows);
  void BeginPass();
  // A pass and its step. False if the update ends here.
  absl::StatusOr<bool> Advance(const Place& place,
                               absl::Span<const ppo::Trajectory> rows,
                               const ppo::PassOptions& options);
  absl::StatusOr<Next> Pass(absl::Span<const ppo::Trajectory> rows,
                            const ppo::PassOptions& options,
                            v1::UpdateProgress* progress);
  // False if it took the update back.
  absl::StatusOr<bool> Step(v1::UpdateProgress* progress);
  void TakeBack();
  void NoteNonFinite(const std::string& name);
  template <typename Names>
  void AddAnomalies(const Names& names);

  LearnerCalls& calls_;
  ppo::Learner& learner_;
  const UpdatePlan& plan_;
  const Hooks& hooks_;

  v1::UpdateResult* result_ = nullptr;
  ppo::BatchTotals totals_;  // Of the pass over the whole batch.
  double kl_sum_ = 0;        // Of the pass.
  int64_t kl_count_ = 0;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_WHOLE_UPDATE_H_
