#ifndef ESPER_TESTS_GOLDEN_TRAINING_PARITY_HEAD_TABLES_H_
#define ESPER_TESTS_GOLDEN_TRAINING_PARITY_HEAD_TABLES_H_

#include "ATen/core/Tensor.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/zeros.h"
#include "core/policy/policy_spec.h"
#include "core/ppo/trajectory_rules.h"

namespace esper::testing {

// Heads in storage order, as along an axis of 8.
inline constexpr const char* kHeads[] = {
    "slot",         "blueprint",   "style",       "tempo",
    "alpha_target", "alpha_speed", "alpha_curve", "op"};

// Which heads matter, from actions and masks that hold nothing but the op.
class HeadTables {
 public:
  HeadTables() : rules_(policy::PolicySpec::NetworkGrowing(), 1) {}

  // ops: int64 [N] -> bool [N, 8].
  at::Tensor Relevance(const at::Tensor& ops) const {
    at::Tensor actions = at::zeros({ops.size(0), 8}, at::kLong);
    actions.select(1, 7).copy_(ops);
    return rules_.layout().Relevance(actions);
  }

  // op_masks: [N, 6], 0 or 1 -> bool [N, 8].
  at::Tensor Availability(const at::Tensor& op_masks) const {
    const policy::HeadLayout& layout = rules_.layout();
    at::Tensor masks = at::ones({op_masks.size(0), layout.width()}, at::kBool);
    masks.slice(1, layout.offset(7), layout.offset(7) + layout.size(7))
        .copy_(op_masks.to(at::kBool));
    return rules_.Available(masks);
  }

 private:
  const ppo::TrajectoryRules rules_;
};

}  // namespace esper::testing
#endif  // ESPER_TESTS_GOLDEN_TRAINING_PARITY_HEAD_TABLES_H_
