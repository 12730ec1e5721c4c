#include "core/env/reward_terms.h"

#include <algorithm>
#include <cmath>

namespace esper::env {
namespace {

constexpr double kSynergyScale = 0.1;
constexpr double kSynergySlope = 0.5;  // Per accuracy point.
constexpr double kFullLegitimacyEpochs = 5.0;
constexpr double kSmallestSum = 1e-8;

}  // namespace

double StagePotential(int64_t stage) {
  switch (stage) {
    case policy::kStageGerminated:
      return 1.0;
    case policy::kStageTraining:
      return 2.0;
    case policy::kStageBlending:
      return 3.5;
    case policy::kStageHolding:
      return 5.5;
    case policy::kStageFossilized:
      return 6.0;
    default:
      return 0.0;
  }
}

double StageProgress(const RewardConfig& config, int64_t epochs) {
  return std::min(config.epoch_progress_bonus * static_cast<double>(epochs),
                  config.max_progress_bonus);
}

double SeedPotential(const RewardConfig& config, int64_t stage,
                     int64_t epochs) {
  if (stage <= policy::kStageDormant) return 0;
  return StagePotential(stage) + StageProgress(config, epochs);
}

double PotentialShaping(const RewardConfig& config, const SeedInfo& seed) {
  const auto potential = [&config](int64_t stage, int64_t epochs) {
    return StagePotential(stage) + StageProgress(config, epochs);
  };
  const double now = potential(seed.stage, seed.epochs_in_stage);
  const double before =
      seed.epochs_in_stage > 0
          ? potential(seed.stage, seed.epochs_in_stage - 1)
          : potential(seed.previous_stage, seed.previous_epochs_in_stage);
  return config.pbrs_weight * (config.gamma * now - before);
}

double TimingDiscount(int64_t epoch, int64_t warmup, double floor) {
  if (warmup <= 0 || epoch >= warmup) return 1.0;
  return floor + (1.0 - floor) * static_cast<double>(epoch) /
                     static_cast<double>(warmup);
}

double AttributedContribution(RewardConfig::Formula formula, double progress,
                              double contribution) {
  if (progress <= 0 || contribution <= 0) return 0;
  if (formula == RewardConfig::Formula::kMinimum) {
    return std::min(progress, contribution);
  }
  return 2.0 * progress * contribution /
         std::max(progress + contribution, kSmallestSum);
}

double SynergyBonus(double interaction_sum) {
  if (interaction_sum <= 0) return 0;
  return kSynergyScale * std::tanh(kSynergySlope * interaction_sum);
}

double HoldingLegitimacy(int64_t epochs_in_stage) {
  return std::min(1.0,
                  static_cast<double>(epochs_in_stage) / kFullLegitimacyEpochs);
}

double OpCost(const RewardConfig& config, policy::Op op) {
  switch (op) {
    case policy::Op::kGerminate:
      return config.germinate_cost;
    case policy::Op::kSetAlphaTarget:
      return config.set_alpha_target_cost;
    case policy::Op::kPrune:
      return config.prune_cost;
    case policy::Op::kFossilize:
      return config.fossilize_cost;
    default:
      return 0;
  }
}

double ParameterOverhead(const RewardInputs& inputs) {
  if (inputs.effective_seed_params.has_value()) {
    return *inputs.effective_seed_params;
  }
  return static_cast<double>(
      std::max<int64_t>(inputs.total_params - inputs.host_params, 0));
}

std::vector<int64_t> PaidSlots(const RewardConfig& config,
                               const RewardInputs& inputs) {
  if (config.attribution == RewardConfig::Attribution::kTargetSlot) {
    return {inputs.target};
  }
  std::vector<int64_t> paid;
  for (size_t i = 0; i < inputs.slots.size(); ++i) {
    if (inputs.slots[i].seed.has_value()) {
      paid.push_back(static_cast<int64_t>(i));
    }
  }
  return paid;
}

policy::Op OpOnSlot(const RewardInputs& inputs, int64_t index) {
  return index == inputs.target ? inputs.op : policy::Op::kWait;
}

}  // namespace esper::env
