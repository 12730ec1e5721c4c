#include <algorithm>

#include "core/env/reward_families.h"
#include "core/env/reward_terms.h"

namespace esper::env {
namespace {

constexpr double kFlatOpPrice = -0.01;
constexpr double kFinalAccuracyWeight = 3.0;  // Per accuracy share.
constexpr double kContributingBonus = 2.0;    // Per fossilised seed.
constexpr double kParameterWeight = 0.1;      // Per parameter budget.

}  // namespace

absl::StatusOr<RewardBreakdown> SimplifiedReward(const RewardConfig& config,
                                                 const RewardInputs& inputs) {
  RewardBreakdown reward;
  if (!config.disable_pbrs) {
    for (int64_t index : PaidSlots(config, inputs)) {
      const auto& seed = inputs.slots[index].seed;
      if (seed.has_value()) reward.pbrs += PotentialShaping(config, *seed);
    }
  }
  if (inputs.op != policy::Op::kWait) reward.op_shaping = kFlatOpPrice;
  if (inputs.epoch == inputs.max_epochs && !config.disable_terminal_reward) {
    reward.terminal =
        kFinalAccuracyWeight * inputs.val_acc / 100.0 +
        kContributingBonus * static_cast<double>(inputs.n_contributing);
  }
  return reward;
}

absl::StatusOr<RewardBreakdown> SparseReward(const RewardConfig& config,
                                             const RewardInputs& inputs) {
  RewardBreakdown reward;
  if (inputs.epoch == inputs.max_epochs) {
    if (!inputs.committed_val_acc.has_value()) {
      return MissingInput("committed_val_acc");
    }
    const double size = static_cast<double>(inputs.fossilized_params) /
                        static_cast<double>(config.param_budget);
    reward.terminal =
        config.sparse_reward_scale *
        std::clamp(*inputs.committed_val_acc / 100.0 - kParameterWeight * size,
                   -1.0, 1.0);
  }
  const auto& seed = inputs.slots[inputs.target].seed;
  if (config.mode == RewardMode::kMinimal && inputs.op == policy::Op::kPrune &&
      seed.has_value() && seed->age_epochs < config.early_prune_threshold) {
    reward.op_shaping = config.early_prune_penalty;
  }
  return reward;
}

}  // namespace esper::env
