#include <algorithm>
#include <cmath>

#include "core/env/reward_families.h"
#include "core/env/reward_terms.h"

namespace esper::env {
namespace {

using policy::Op;

struct Attribution {
  double value = 0;
  double discount = 1;
  double ratio_penalty = 0;
  double timing = 1;
};

// Near 0 for a clearly harmful whole, 0.5 at no effect.
double SigmoidDiscount(const RewardConfig& config, double improvement) {
  if (improvement >= 0) return 1.0;
  return 1.0 / (1.0 + std::exp(std::min(
                          -config.attribution_sigmoid_steepness * improvement,
                          700.0)));
}

// What a measured, harmless contribution is worth before the discounts.
double ContributionValue(const RewardConfig& config,
                         const std::optional<double>& progress,
                         double contribution) {
  if (!progress.has_value()) return 0.5 * contribution;
  if (*progress <= 0) return 0;
  if (contribution < *progress) return contribution;
  return AttributedContribution(config.attribution_formula, *progress,
                                contribution);
}

// Stage by number: the proxy pays from BLENDING on.
double ProxyAttribution(const RewardConfig& config, const SeedInfo& seed) {
  const double gain = seed.improvement_since_stage_start;
  if (seed.stage < policy::kStageBlending || gain <= 0) return 0;
  return config.proxy_confidence_factor * config.contribution_weight * gain;
}

Attribution Attribute(const RewardConfig& config, const RewardInputs& inputs,
                      Op op, const SlotRewardInputs& slot) {
  Attribution result;
  const auto& improvement = inputs.counterfactual_improvement;
  const bool fossilized =
      slot.seed.has_value() && slot.seed->stage == policy::kStageFossilized;
  if (slot.contribution.has_value() && slot.seed.has_value()) {
    result.discount = SigmoidDiscount(config, *improvement);
    if (result.discount >= 0.5) {
      result.ratio_penalty =
          RatioPenalty(config, *slot.contribution, *improvement);
    }
  }
  if (slot.contribution.has_value() && !fossilized) {
    const double contribution = *slot.contribution;
    const double weight = config.contribution_weight;
    if (contribution < 0) {
      result.value = weight * contribution;
    } else {
      std::optional<double> progress;
      if (slot.acc_at_germination.has_value()) {
        progress = inputs.val_acc - *slot.acc_at_germination;
      }
      if (slot.seed.has_value() && !config.disable_timing_discount) {
        result.timing = TimingDiscount(inputs.epoch - slot.seed->age_epochs,
                                       config.germination_warmup_epochs,
                                       config.germination_discount_floor);
      }
      result.value = weight *
                     ContributionValue(config, progress, contribution) *
                     result.discount * result.timing;
    }
  } else if (slot.seed.has_value() && !fossilized) {
    result.value = ProxyAttribution(config, *slot.seed);
  }
  if (op == Op::kFossilize && improvement.value_or(0) < 0) result.value = 0;
  if (op == Op::kPrune) {
    result.value = std::min(-result.value, config.prune_attribution_cap);
  }
  if (!fossilized) result.value += result.ratio_penalty;
  return result;
}

}  // namespace

absl::StatusOr<RewardBreakdown> ShapedReward(const RewardConfig& config,
                                             const RewardInputs& inputs) {
  RewardBreakdown reward;
  for (int64_t index : PaidSlots(config, inputs)) {
    const SlotRewardInputs& slot = inputs.slots[index];
    if (slot.seed.has_value() && slot.contribution.has_value() &&
        !inputs.counterfactual_improvement.has_value()) {
      return MissingInput("counterfactual_improvement");
    }
    const Op op = OpOnSlot(inputs, index);
    const Attribution attribution = Attribute(config, inputs, op, slot);
    reward.attribution += attribution.value;
    if (slot.seed.has_value()) {
      AddSeedTerms(config, inputs, op, *slot.seed, attribution.value,
                   attribution.discount, &reward);
    }
    if (index == inputs.target) {
      reward.attribution_discount = attribution.discount;
      reward.ratio_penalty = attribution.ratio_penalty;
      reward.timing_discount = attribution.timing;
    }
  }
  AddCommonTerms(config, inputs, &reward);
  return reward;
}

}  // namespace esper::env
