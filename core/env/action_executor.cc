#include "core/env/action_executor.h"

#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/env/preflight.h"
#include "core/slot/alpha.h"
#include "core/slot/lifecycle_result.h"

namespace esper::env {
namespace {

using policy::Op;

TargetSlot Describe(const slot::SlotReport* report) {
  TargetSlot target;
  if (report == nullptr) return target;
  target.stage = static_cast<int64_t>(report->stage);
  target.alpha_mode = static_cast<int64_t>(report->telemetry.alpha.mode);
  target.age_epochs = report->metrics.epochs_total;
  return target;
}

slot::LifecycleResult Dispatch(const policy::FactoredAction& action,
                               const std::string& seed_id,
                               const slot::SlotLifecycle& lifecycle,
                               slot::SeedSlot& slot) {
  const policy::ActionParameters parameters = policy::DecodeAction(action);
  const auto algorithm =
      static_cast<slot::AlphaAlgorithm>(parameters.alpha_algorithm);
  const auto curve = static_cast<slot::AlphaCurve>(parameters.alpha_curve);
  switch (action.op) {
    case Op::kGerminate: {
      slot::GerminateRequest request;
      request.blueprint_id = parameters.blueprint_id;
      request.seed_id = seed_id;
      request.blend_id = parameters.blend_id;
      request.tempo = parameters.tempo_epochs;
      request.algorithm = algorithm;
      request.alpha_target = parameters.alpha_target;
      return lifecycle.Germinate(slot, request);
    }
    case Op::kSetAlphaTarget: {
      slot::AlphaTargetRequest request;
      request.target = parameters.alpha_target;
      request.steps = parameters.alpha_steps;
      request.curve = curve;
      request.steepness = parameters.alpha_steepness;
      request.algorithm = algorithm;
      return lifecycle.SetAlphaTarget(slot, request);
    }
    case Op::kPrune: {
      slot::PruneRequest request;
      request.steps = parameters.alpha_steps;
      request.curve = curve;
      request.steepness = parameters.alpha_steepness;
      return lifecycle.SchedulePrune(slot, request);
    }
    case Op::kFossilize:
      return lifecycle.Fossilize(slot);
    case Op::kAdvance:
      return lifecycle.Advance(slot);
    case Op::kWait:
      break;
  }
  return slot::LifecycleResult::Done();
}

}  // namespace

Op IntendedOp(const policy::FactoredAction& action, const SlotReports& reports,
              const std::vector<std::string>& slot_ids,
              const ExecutionContext& context, std::string* refusal) {
  if (action.op == Op::kWait) return Op::kWait;
  const std::string& slot_id = slot_ids[action.slot];
  const slot::SlotReport* report = FindReport(reports, slot_id);
  const policy::ActionParameters parameters = policy::DecodeAction(action);

  PreflightInputs inputs;
  inputs.op = action.op;
  inputs.blueprint_id = parameters.blueprint_id;
  inputs.alpha_target = parameters.alpha_target;
  inputs.alpha_steps = parameters.alpha_steps;
  inputs.alpha_curve = parameters.alpha_curve;
  inputs.val_loss = context.val_loss;
  inputs.val_accuracy = context.val_accuracy;
  if (report != nullptr && IsLive(*report)) {
    inputs.seed_stage = static_cast<int64_t>(report->stage);
  }
  inputs.max_seeds = context.max_seeds;
  inputs.live_seeds = context.live_seeds;
  const std::string veto = PreflightVeto(inputs);
  if (!veto.empty()) {
    *refusal = absl::StrCat("vetoed: ", veto);
    return Op::kWait;
  }
  const Op intended = EffectiveOp(action.op, Describe(report));
  if (intended != action.op) {
    *refusal = absl::StrCat(
        policy::OpName(action.op), " does not apply to slot ", slot_id, " (",
        report == nullptr ? "empty" : slot::StageName(report->stage), ")");
    return intended;
  }
  if (action.op == Op::kGerminate &&
      action.blueprint == policy::kBlueprintNoop) {
    *refusal = "a noop seed has nothing to train";
    return Op::kWait;
  }
  return intended;
}

absl::StatusOr<ActionOutcome> ExecuteAction(
    const policy::FactoredAction& action, const SlotReports& reports,
    const ExecutionContext& context, GrowingNetwork& network) {
  ActionOutcome outcome;
  outcome.op = action.op;
  if (action.op == Op::kWait) return outcome;
  if (IntendedOp(action, reports, network.slot_ids(), context,
                 &outcome.refusal) == Op::kWait) {
    outcome.success = false;
    return outcome;
  }
  const slot::LifecycleResult result = Dispatch(
      action, context.seed_id, network.lifecycle(), network.slot(action.slot));
  // A blueprint of another topology is the policy's mistake, like a refusal.
  if (!result.ok() && !result.refused() &&
      result.status().code() != absl::StatusCode::kInvalidArgument) {
    return result.status();
  }
  outcome.success = result.ok();
  if (!result.ok()) {
    outcome.refusal = absl::StrCat(slot::RefusalName(result.refusal()), ": ",
                                   std::string(result.status().message()));
  }
  return outcome;
}

}  // namespace esper::env
