#include "core/env/preflight.h"

#include <cmath>

#include "core/policy/action_mask.h"

namespace esper::env {

using policy::Op;

std::string PreflightVeto(const PreflightInputs& inputs) {
  if (inputs.op == Op::kWait) return "";
  if (!std::isfinite(inputs.val_loss)) return "val_loss_finite";
  if (!std::isfinite(inputs.val_accuracy)) return "val_accuracy_finite";
  if (inputs.cooldown_epochs_left < 0) return "cooldown_nonnegative";
  if (inputs.max_seeds > 0 && inputs.live_seeds > inputs.max_seeds) {
    return "active_seed_capacity";
  }
  if (inputs.op == Op::kGerminate) {
    if (!inputs.blueprint_id.has_value()) return "blueprint_present";
    if (inputs.seed_stage.has_value()) return "slot_empty_for_germination";
  }
  if (inputs.op == Op::kSetAlphaTarget && !inputs.alpha_target.has_value()) {
    return "alpha_target_present";
  }
  if ((inputs.op == Op::kSetAlphaTarget || inputs.op == Op::kPrune) &&
      (!inputs.alpha_steps.has_value() || !inputs.alpha_curve.has_value())) {
    return "alpha_schedule_complete";
  }
  return "";
}

namespace {

bool Applies(Op op, const TargetSlot& target) {
  if (op == Op::kWait) return true;
  if (!target.enabled) return false;
  if (op == Op::kGerminate) return !target.stage.has_value();
  if (!target.stage.has_value()) return false;
  const int64_t stage = *target.stage;
  const bool holds = target.alpha_mode == policy::kAlphaModeHold;
  switch (op) {
    case Op::kSetAlphaTarget:
      return holds && (stage == policy::kStageBlending ||
                       stage == policy::kStageHolding);
    case Op::kPrune:
      return holds && policy::IsLiveStage(stage) &&
             stage != policy::kStageFossilized &&
             target.age_epochs >= policy::kMinPruneAgeEpochs;
    case Op::kFossilize:
      return stage == policy::kStageHolding;
    case Op::kAdvance:
      return stage == policy::kStageGerminated ||
             stage == policy::kStageTraining || stage == policy::kStageBlending;
    default:
      return false;
  }
}

}  // namespace

Op EffectiveOp(Op op, const TargetSlot& target) {
  return Applies(op, target) ? op : Op::kWait;
}

}  // namespace esper::env
