#ifndef ESPER_CORE_PPO_TRAJECTORY_RULES_H_
#define ESPER_CORE_PPO_TRAJECTORY_RULES_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "core/policy/head_layout.h"
#include "core/policy/policy_spec.h"
#include "core/ppo/trajectory.h"

namespace esper::ppo {

// What a recorded episode must obey to be trained on, as far as it can be told
// without the network. Immutable; thread-safe.
class TrajectoryRules {
 public:
  // `spec` must be valid. max_length: steps, >= 1.
  TrajectoryRules(const policy::PolicySpec& spec, int64_t max_length);

  // `row` is the position of the trajectory in its batch; it goes into the
  // error's detail, with the step. Errors:
  //   SPEC_MISMATCH      another specification digest (an empty one too);
  //   MALFORMED_REQUEST  no end, no steps, truncated without bootstrap value,
  //                      terminated with one other than 0;
  //   BUDGET_EXCEEDED    longer than max_length;
  //   BAD_SHAPE          shape or dtype of a tensor;
  //   NONFINITE_INPUT    in observations, rewards, values, log-probs, actions
  //                      of Gaussian heads, contribution targets, initial
  //                      state, bootstrap;
  //   BAD_BLUEPRINT_INDEX  categorical input out of range;
  //   EMPTY_ACTION_MASK  nothing allowed for a head that the action uses;
  //   INVALID_ACTION     out of range, disallowed by its own mask, not the
  //                      placeholder (zeros for a Gaussian head) of a head it
  //                      does not use, or an effective choice that is neither
  //                      the action nor the idle one;
  //   BAD_BEHAVIOUR      log-prob > 0, < -1000, or not 0 for an unused head; of
  //                      a Gaussian head > 20 or < -1000 per dimension;
  //   UNKNOWN_VERSION    a version below 1.
  // Only what `use` reads is checked.
  absl::Status Validate(
      const Trajectory& trajectory, int64_t row,
      TrajectoryUse use = TrajectoryUse::kReinforcement) const;

  // Which heads some allowed driver choice would use, bool [N, K], from masks
  // bool [N, A]; a head without a driver is always available.
  at::Tensor Available(const at::Tensor& masks) const;

  const policy::PolicySpec& spec() const { return spec_; }
  const policy::HeadLayout& layout() const { return layout_; }
  const std::string& spec_digest() const { return digest_; }
  // Head whose effective choice is recorded: the first driver that has an idle
  // choice, otherwise the first driver; -1 if no head drives another.
  int64_t driver() const { return driver_; }

 private:
  void CheckHeader(const Trajectory& trajectory, int64_t row) const;
  void CheckEnd(const Trajectory& trajectory, int64_t row) const;
  // What was seen and done.
  void CheckShapes(const Trajectory& trajectory) const;
  void CheckNumbers(const Trajectory& trajectory, int64_t row) const;
  // What acting and the environment answered.
  void CheckOutcomeShapes(const Trajectory& trajectory) const;
  void CheckOutcomeNumbers(const Trajectory& trajectory, int64_t row) const;
  void CheckChoices(const Trajectory& trajectory, int64_t row,
                    TrajectoryUse use) const;
  // One step `t` of head `k`, whose action is in range.
  void CheckChoice(const Trajectory& trajectory, int64_t row, int64_t t,
                   int64_t k, bool used) const;
  void CheckGaussian(const Trajectory& trajectory, int64_t row, int64_t t,
                     int64_t k, bool used) const;
  void CheckLogProb(const Trajectory& trajectory, int64_t row, int64_t t,
                    int64_t k, bool used) const;
  void CheckEffective(const Trajectory& trajectory, int64_t row,
                      int64_t t) const;

  const policy::PolicySpec spec_;
  const policy::HeadLayout layout_;
  const std::string digest_;
  const int64_t max_length_;
  int64_t driver_ = -1;
};

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_TRAJECTORY_RULES_H_
