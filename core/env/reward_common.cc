#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/env/outcome.h"
#include "core/env/reward_families.h"
#include "core/env/reward_terms.h"
#include "core/error.h"
#include "core/policy/action_mask.h"

namespace esper::env {
namespace {

using policy::Op;

double GerminateShaping(const RewardConfig& config, const RewardInputs& inputs,
                        const SlotRewardInputs& slot) {
  if (slot.seed.has_value()) return config.germinate_with_seed_penalty;
  if (config.disable_pbrs || inputs.epoch >= inputs.max_epochs) return 0;
  const double timing =
      config.disable_timing_discount
          ? 1.0
          : TimingDiscount(inputs.epoch, config.germination_warmup_epochs,
                           config.germination_discount_floor);
  return config.pbrs_weight * config.gamma *
         StagePotential(policy::kStageGerminated) * timing;
}

double FossilizeShaping(const RewardConfig& config, const RewardInputs& inputs,
                        const SlotRewardInputs& slot) {
  const auto& improvement = inputs.counterfactual_improvement;
  if (!slot.seed.has_value() || slot.seed->stage != policy::kStageHolding ||
      !improvement.has_value()) {
    return config.invalid_fossilize_penalty;
  }
  const double contribution = slot.contribution.value_or(0);
  if (*improvement < 0) {
    // A seed that looks useful alone while the whole got worse costs more.
    const bool ransom =
        contribution > config.improvement_safe_threshold && *improvement < -0.2;
    return -0.5 - std::min(0.2 * std::abs(*improvement), 1.0) -
           (ransom ? 0.3 : 0.0);
  }
  if (contribution < kMinFossilizeContribution) {
    return config.fossilize_noncontributing_penalty;
  }
  const double legitimacy = HoldingLegitimacy(slot.seed->epochs_in_stage);
  double bonus = (config.fossilize_base_bonus +
                  config.fossilize_contribution_scale * contribution) *
                 legitimacy;
  if (!config.disable_terminal_reward) {
    bonus += config.fossilize_terminal_scale *
             std::tanh(1.0 / config.fossilize_quality_ceiling) * legitimacy;
  }
  return bonus;
}

double PruneOutcome(const RewardConfig& config, const SlotRewardInputs& slot) {
  if (!slot.seed.has_value()) return -0.2;
  const SeedInfo& seed = *slot.seed;
  if (seed.stage == policy::kStageFossilized) {
    return config.prune_fossilized_penalty;
  }
  const double good = config.prune_good_seed_penalty;
  if (seed.age_epochs < policy::kMinPruneAgeEpochs) {
    return good *
           static_cast<double>(policy::kMinPruneAgeEpochs - seed.age_epochs);
  }
  if (!slot.contribution.has_value()) {
    return seed.age_epochs < config.early_prune_threshold
               ? config.early_prune_penalty
               : 0.0;
  }
  const double contribution = *slot.contribution;
  if (contribution < config.prune_hurting_threshold) {
    return seed.age_epochs < config.min_prune_bonus_age
               ? config.early_prune_penalty
               : config.prune_hurting_bonus;
  }
  if (contribution < 0) return config.prune_acceptable_bonus;
  return std::max(good - 0.05 * contribution, 3.0 * good);
}

double PruneShaping(const RewardConfig& config, const SlotRewardInputs& slot) {
  double shaping = PruneOutcome(config, slot);
  if (slot.seed.has_value() && !config.disable_pbrs) {
    shaping -= config.pbrs_weight * SeedPotential(config, slot.seed->stage,
                                                  slot.seed->epochs_in_stage);
  }
  return shaping;
}

double OpShaping(const RewardConfig& config, const RewardInputs& inputs) {
  const SlotRewardInputs& slot = inputs.slots[inputs.target];
  double shaping = OpCost(config, inputs.op);
  switch (inputs.op) {
    case Op::kGerminate:
      shaping += GerminateShaping(config, inputs, slot);
      break;
    case Op::kFossilize:
      shaping += FossilizeShaping(config, inputs, slot);
      break;
    case Op::kPrune:
      shaping += PruneShaping(config, slot);
      break;
    case Op::kAdvance:
      if (slot.seed.has_value() && slot.seed->stage == policy::kStageTraining) {
        shaping += config.advance_from_training_penalty;
      }
      break;
    default:
      break;
  }
  return shaping;
}

}  // namespace

absl::Status MissingInput(const std::string& field) {
  ErrorDetail detail;
  detail.reason = "MALFORMED_REQUEST";
  detail.field = field;
  detail.hint = "Measure it before the reward is computed.";
  return MakeStatus(absl::StatusCode::kInvalidArgument, detail,
                    absl::StrCat("The reward needs ", field, "."));
}

double RatioPenalty(const RewardConfig& config, double contribution,
                    double counterfactual_improvement) {
  if (config.disable_anti_gaming || contribution <= 1.0) return 0;
  if (counterfactual_improvement <= config.improvement_safe_threshold) {
    return -0.3 * std::min(1.0, contribution / 10.0);
  }
  const double excess = contribution / counterfactual_improvement -
                        config.hacking_ratio_threshold;
  if (excess <= 0) return 0;
  return -std::min(0.3, 0.1 * excess / config.hacking_ratio_threshold);
}

void AddSeedTerms(const RewardConfig& config, const RewardInputs& inputs, Op op,
                  const SeedInfo& seed, double attribution, double discount,
                  RewardBreakdown* reward) {
  const auto epochs = static_cast<double>(seed.epochs_in_stage);
  if (seed.stage == policy::kStageBlending &&
      inputs.counterfactual_improvement.value_or(0) < 0) {
    reward->blending_warning += -0.1 - std::min(0.05 * epochs, 0.3);
  }
  if (seed.stage == policy::kStageHolding && op != Op::kFossilize &&
      op != Op::kPrune && seed.epochs_in_stage >= 2 && attribution > 0) {
    reward->holding_warning -= std::min(0.1 + 0.05 * (epochs - 2.0), 0.3);
  }
  if (!config.disable_pbrs) reward->pbrs += PotentialShaping(config, seed);
  if (discount >= 0.5 && attribution > 0) {
    reward->synergy += SynergyBonus(seed.interaction_sum);
  }
}

void AddCommonTerms(const RewardConfig& config, const RewardInputs& inputs,
                    RewardBreakdown* reward) {
  const double overhead = ParameterOverhead(inputs);
  if (inputs.host_params > 0 && overhead > 0) {
    const double floor = static_cast<double>(
        std::max(inputs.host_params, config.rent_host_params_floor));
    reward->growth_ratio = overhead / floor;
    reward->rent -=
        std::min(config.rent_weight * std::log(1.0 + reward->growth_ratio),
                 config.max_rent);
  }
  if (inputs.alpha_delta_sq_sum > 0 && !config.disable_anti_gaming) {
    reward->alpha_shock -=
        std::min(config.alpha_shock_coef * inputs.alpha_delta_sq_sum,
                 config.alpha_shock_cap);
  }
  const int64_t crowded = std::max<int64_t>(
      0, inputs.n_active + inputs.n_fossilized - config.free_slots);
  reward->occupancy_rent -=
      config.seed_occupancy_cost * static_cast<double>(crowded);
  reward->fossilized_rent -= config.fossilized_maintenance_cost *
                             static_cast<double>(inputs.n_fossilized);
  reward->op_shaping += OpShaping(config, inputs);
  if (inputs.epoch == inputs.max_epochs && !config.disable_terminal_reward) {
    reward->terminal += config.terminal_acc_weight * inputs.val_acc;
  }
}

}  // namespace esper::env
