#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/env/outcome.h"
#include "core/env/reward_families.h"
#include "core/env/reward_terms.h"

namespace esper::env {
namespace {

using policy::Op;

double BasicPotential(const RewardConfig& config, Op op, const SeedInfo& seed) {
  if (op == Op::kPrune) {
    return -config.pbrs_weight *
           SeedPotential(config, seed.stage, seed.epochs_in_stage);
  }
  return PotentialShaping(config, seed);
}

// The fossilise bonus; what is paid later becomes `reward->new_drip`.
void AddFossilize(const RewardConfig& config, const RewardInputs& inputs,
                  const SlotRewardInputs& slot, RewardBreakdown* reward) {
  const SeedInfo& seed = *slot.seed;
  const double improvement = inputs.counterfactual_improvement.value_or(0);
  const double contribution = slot.contribution.value_or(0);
  if (seed.stage != policy::kStageHolding) {
    reward->fossilize = config.basic_fossilize_invalid_penalty;
    return;
  }
  if (improvement <= 0 || contribution < kMinFossilizeContribution) {
    const bool harmful =
        improvement <= 0 && contribution > config.improvement_safe_threshold;
    reward->fossilize = harmful
                            ? config.basic_fossilize_invalid_penalty
                            : config.basic_fossilize_noncontributing_penalty;
    return;
  }
  const double full = (config.basic_fossilize_base_bonus +
                       config.basic_contribution_scale *
                           AttributedContribution(config.attribution_formula,
                                                  improvement, contribution)) *
                      HoldingLegitimacy(seed.epochs_in_stage);
  const bool drips = config.drip_fraction > 0 && !slot.seed_id.empty() &&
                     !slot.slot_id.empty();
  const double later = drips ? config.drip_fraction : 0.0;
  reward->fossilize = full * (1.0 - later);
  if (!drips) return;
  DripState drip;
  drip.seed_id = slot.seed_id;
  drip.slot_id = slot.slot_id;
  drip.fossilize_epoch = inputs.epoch;
  drip.max_epochs = inputs.max_epochs;
  drip.total = full * later;
  drip.scale = drip.total /
               static_cast<double>(std::max(inputs.max_epochs - inputs.epoch,
                                            config.min_drip_epochs));
  reward->new_drip = drip;
}

absl::Status AddDrips(const RewardConfig& config, const RewardInputs& inputs,
                      RewardBreakdown* reward) {
  reward->drips = inputs.drips;
  for (DripState& drip : reward->drips) {
    const auto it = inputs.drip_contributions.find(drip.seed_id);
    if (it == inputs.drip_contributions.end()) {
      return MissingInput(absl::StrCat("drip_contributions.", drip.seed_id));
    }
    const double most = config.max_drip_per_epoch;
    const double payment = std::clamp(drip.scale * it->second,
                                      -config.negative_drip_ratio * most, most);
    drip.paid += payment;
    reward->drip += payment;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RewardBreakdown> BasicReward(const RewardConfig& config,
                                            const RewardInputs& inputs) {
  RewardBreakdown reward;
  if (!config.disable_pbrs) {
    for (int64_t index : PaidSlots(config, inputs)) {
      const auto& seed = inputs.slots[index].seed;
      if (!seed.has_value()) continue;
      reward.pbrs += BasicPotential(config, OpOnSlot(inputs, index), *seed);
    }
  }
  const double overhead = ParameterOverhead(inputs);
  reward.rent -= config.param_penalty_weight * overhead /
                 static_cast<double>(config.param_budget);
  const SlotRewardInputs& target = inputs.slots[inputs.target];
  if (inputs.op == Op::kFossilize && target.seed.has_value()) {
    AddFossilize(config, inputs, target, &reward);
  }
  if (inputs.epoch == inputs.max_epochs) {
    double gain = inputs.acc_delta;
    if (config.basic_gain == RewardConfig::BasicGain::kSinceStart) {
      if (!inputs.acc_since_start.has_value()) {
        return MissingInput("acc_since_start");
      }
      gain = *inputs.acc_since_start;
    }
    reward.terminal = config.basic_acc_delta_weight * gain / 100.0;
  }
  if (absl::Status status = AddDrips(config, inputs, &reward); !status.ok()) {
    return status;
  }
  return reward;
}

}  // namespace esper::env
