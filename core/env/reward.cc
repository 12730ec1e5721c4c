#include "core/env/reward.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/env/outcome.h"
#include "core/env/reward_families.h"
#include "core/env/reward_terms.h"
#include "core/error.h"

namespace esper::env {
namespace {

// Names the first input that is not finite; empty if all are.
std::string FirstNonFinite(const RewardInputs& inputs) {
  const std::pair<const char*, double> scalars[] = {
      {"val_acc", inputs.val_acc},
      {"acc_delta", inputs.acc_delta},
      {"acc_since_start", inputs.acc_since_start.value_or(0)},
      {"stable_val_acc", inputs.stable_val_acc.value_or(0)},
      {"committed_val_acc", inputs.committed_val_acc.value_or(0)},
      {"counterfactual_improvement",
       inputs.counterfactual_improvement.value_or(0)},
      {"effective_seed_params", inputs.effective_seed_params.value_or(0)},
      {"alpha_delta_sq_sum", inputs.alpha_delta_sq_sum}};
  for (const auto& [name, value] : scalars) {
    if (!std::isfinite(value)) return name;
  }
  for (const SlotRewardInputs& slot : inputs.slots) {
    const SeedInfo seed = slot.seed.value_or(SeedInfo());
    const std::pair<const char*, double> numbers[] = {
        {"contribution", slot.contribution.value_or(0)},
        {"acc_at_germination", slot.acc_at_germination.value_or(0)},
        {"escrow_credit", slot.escrow_credit},
        {"improvement_since_stage_start", seed.improvement_since_stage_start},
        {"total_improvement", seed.total_improvement},
        {"interaction_sum", seed.interaction_sum}};
    for (const auto& [name, value] : numbers) {
      if (!std::isfinite(value)) return absl::StrCat(slot.slot_id, ".", name);
    }
  }
  for (const auto& [seed_id, contribution] : inputs.drip_contributions) {
    if (!std::isfinite(contribution)) {
      return absl::StrCat("drip_contributions.", seed_id);
    }
  }
  return "";
}

}  // namespace

std::vector<std::pair<const char*, double>> RewardBreakdown::Parts() const {
  return {{"attribution", attribution},
          {"blending_warning", blending_warning},
          {"holding_warning", holding_warning},
          {"pbrs", pbrs},
          {"synergy", synergy},
          {"rent", rent},
          {"alpha_shock", alpha_shock},
          {"occupancy_rent", occupancy_rent},
          {"fossilized_rent", fossilized_rent},
          {"op_shaping", op_shaping},
          {"fossilize", fossilize},
          {"drip", drip},
          {"terminal", terminal},
          {"loss", loss},
          {"escrow_forfeit", escrow_forfeit},
          {"pbrs_clawback", pbrs_clawback},
          {"auto_prune", auto_prune},
          {"hindsight", hindsight},
          {"governor", governor}};
}

double RewardBreakdown::total() const {
  double sum = 0;
  for (const auto& [name, value] : Parts()) sum += value;
  return sum;
}

absl::StatusOr<RewardBreakdown> ComputeReward(const RewardConfig& config,
                                              const RewardInputs& inputs) {
  if (absl::Status status = config.Validate(); !status.ok()) return status;
  if (inputs.target < 0 ||
      inputs.target >= static_cast<int64_t>(inputs.slots.size())) {
    return ToStatus(InvalidActionError("slot", /*row=*/-1, /*step=*/-1,
                                       inputs.target,
                                       "is outside the slot configuration"));
  }
  if (const std::string name = FirstNonFinite(inputs); !name.empty()) {
    return ToStatus(NonFiniteError::Input(name));
  }
  switch (config.mode) {
    case RewardMode::kShaped:
      return ShapedReward(config, inputs);
    case RewardMode::kEscrow:
      return EscrowReward(config, inputs);
    case RewardMode::kBasic:
    case RewardMode::kBasicPlus:
      return BasicReward(config, inputs);
    case RewardMode::kSparse:
    case RewardMode::kMinimal:
      return SparseReward(config, inputs);
    case RewardMode::kSimplified:
      return SimplifiedReward(config, inputs);
  }
  return absl::InternalError("Unknown reward mode.");
}

bool CountsAsContributing(const RewardConfig& config, double total_improvement,
                          const std::optional<double>& contribution) {
  if (config.contributing == RewardConfig::Contributing::kSinceGermination) {
    return total_improvement >= kMinFossilizeContribution;
  }
  return contribution.value_or(0) >= kMinFossilizeContribution;
}

void AddFinalTerms(const RewardConfig& config, bool last_epoch,
                   const std::vector<FinalSlot>& occupied,
                   PendingReward* pending, RewardBreakdown* reward) {
  const bool escrow = config.mode == RewardMode::kEscrow;
  const bool shaped = config.mode == RewardMode::kShaped;
  if (last_epoch && escrow) {
    for (const FinalSlot& slot : occupied) {
      if (slot.stage == policy::kStageFossilized ||
          slot.stage == policy::kStagePruned) {
        continue;
      }
      reward->escrow_forfeit -= slot.escrow_credit;
    }
  }
  if (last_epoch && (escrow || shaped) && !config.disable_pbrs) {
    for (const FinalSlot& slot : occupied) {
      if (slot.stage != policy::kStageGerminated &&
          slot.stage != policy::kStageTraining) {
        continue;
      }
      // The germination potential in today's money.
      reward->pbrs_clawback -=
          config.pbrs_weight * config.gamma *
          StagePotential(policy::kStageGerminated) /
          std::pow(config.gamma, static_cast<double>(slot.age_epochs));
    }
  }
  reward->auto_prune += pending->penalty;
  pending->penalty = 0;
  if (pending->credit > 0) reward->hindsight += pending->credit;
  pending->credit = 0;
}

void FlushPending(const RewardConfig& config, PendingReward* pending,
                  RewardBreakdown* reward) {
  if (config.flush_pending_at_end) {
    reward->auto_prune += pending->penalty;
    reward->hindsight += pending->credit;
  }
  *pending = PendingReward();
}

}  // namespace esper::env
