#include <algorithm>
#include <cmath>

#include "core/env/reward_families.h"
#include "core/env/reward_terms.h"

namespace esper::env {
namespace {

using policy::Op;

struct EscrowStep {
  double attribution = 0;
  double ratio_penalty = 0;
  RewardBreakdown::Escrow ledger;
};

double EscrowValue(const std::optional<double>& progress, double contribution) {
  if (!progress.has_value()) return 0.5 * contribution;
  if (*progress <= 0) return 0;
  if (contribution < *progress) return contribution;
  return std::sqrt(*progress * contribution);
}

EscrowStep PayEscrow(const RewardConfig& config, const RewardInputs& inputs,
                     Op op, const SlotRewardInputs& slot) {
  EscrowStep step;
  const double credit = slot.escrow_credit;
  const auto& contribution = slot.contribution;
  if (contribution.has_value() && slot.seed.has_value()) {
    step.ratio_penalty =
        RatioPenalty(config, *contribution, *inputs.counterfactual_improvement);
  }
  RewardBreakdown::Escrow& ledger = step.ledger;
  if (op == Op::kPrune) {
    ledger.delta = -credit;
    step.attribution = ledger.delta;
  } else if (slot.seed.has_value() &&
             slot.seed->stage == policy::kStageFossilized) {
    ledger.target = credit;
  } else if (contribution.has_value() && *contribution < 0) {
    ledger.delta = -credit;
    step.attribution =
        config.contribution_weight * *contribution + ledger.delta;
  } else if (contribution.has_value()) {
    std::optional<double> progress;
    if (slot.acc_at_germination.has_value()) {
      progress = *inputs.stable_val_acc - *slot.acc_at_germination;
    }
    const double value =
        config.contribution_weight * EscrowValue(progress, *contribution);
    ledger.target = std::max(0.0, value + step.ratio_penalty);
    ledger.delta = ledger.target - credit;
    if (config.escrow_delta_clip > 0) {
      ledger.delta = std::clamp(ledger.delta, -config.escrow_delta_clip,
                                config.escrow_delta_clip);
    }
    step.attribution = ledger.delta;
  }
  ledger.next = credit + ledger.delta;
  if (op == Op::kFossilize &&
      inputs.counterfactual_improvement.value_or(0) < 0) {
    step.attribution = 0;
  }
  return step;
}

}  // namespace

absl::StatusOr<RewardBreakdown> EscrowReward(const RewardConfig& config,
                                             const RewardInputs& inputs) {
  if (!inputs.stable_val_acc.has_value()) {
    return MissingInput("stable_val_acc");
  }
  RewardBreakdown reward;
  for (int64_t index : PaidSlots(config, inputs)) {
    const SlotRewardInputs& slot = inputs.slots[index];
    if (slot.seed.has_value() && slot.contribution.has_value() &&
        !inputs.counterfactual_improvement.has_value()) {
      return MissingInput("counterfactual_improvement");
    }
    const Op op = OpOnSlot(inputs, index);
    const EscrowStep step = PayEscrow(config, inputs, op, slot);
    reward.attribution += step.attribution;
    reward.escrow[slot.slot_id] = step.ledger;
    if (slot.seed.has_value()) {
      AddSeedTerms(config, inputs, op, *slot.seed, step.attribution,
                   /*discount=*/1.0, &reward);
    }
    if (index == inputs.target) reward.ratio_penalty = step.ratio_penalty;
  }
  AddCommonTerms(config, inputs, &reward);
  return reward;
}

}  // namespace esper::env
