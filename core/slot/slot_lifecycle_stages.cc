// The lifecycle calls that move a seed from stage to stage, and ticks.

#include <utility>

#include "absl/strings/str_cat.h"
#include "core/slot/slot_lifecycle.h"
#include "core/slot/slot_lifecycle_events.h"

namespace esper::slot {
namespace {

constexpr double kArrivedAtZero = 1e-6;

// Declines an advance before any gate is asked.
LifecycleResult Decline(Refusal refusal, GateLevel level, const char* check,
                        const std::string& message, absl::Time now) {
  GateResult verdict;
  verdict.level = level;
  verdict.checks_failed.push_back(check);
  verdict.message = message;
  verdict.at = now;
  return LifecycleResult::Refused(refusal, message, std::move(verdict));
}

}  // namespace

LifecycleResult SlotLifecycle::DraftGermination(const GerminateRequest& request,
                                                SlotDraft& draft) const {
  if (draft.seed) {
    return LifecycleResult::Refused(
        Refusal::kSlotOccupied,
        absl::StrCat("Slot ", draft.slot.slot_id, " holds ",
                     draft.seed->seed_id, " (",
                     StageName(draft.seed->stage.stage()), ")."));
  }
  auto seed = BuildSeed(draft.slot, *options_.registry, request,
                        draft.germinations + 1, draft.now);
  if (!seed.ok()) return LifecycleResult::Failed(seed.status());
  auto gate = options_.gate_policy.Evaluate(SeedStage::kGerminated,
                                            GateInputsOf(*seed), draft.now);
  if (!gate.ok()) return LifecycleResult::Failed(gate.status());
  if (!gate->passed) {
    return LifecycleResult::Refused(Refusal::kGateFailed, gate->message, *gate);
  }
  EnterStage(*seed, SeedStage::kGerminated, draft.now);
  seed->module->train(draft.training);
  if (seed->gate) seed->gate->train(draft.training);
  draft.seed = *std::move(seed);
  draft.changed = true;
  ++draft.germinations;
  draft.events.push_back(MakeGerminated(*draft.seed));
  return LifecycleResult::Done(*std::move(gate));
}

LifecycleResult SlotLifecycle::DraftAdvance(std::optional<SeedStage> target,
                                            SlotDraft& draft) const {
  if (target && IsFailureStage(*target)) {
    return LifecycleResult::Failed(absl::InvalidArgumentError(absl::StrCat(
        "Advancing to ", StageName(*target), " is not possible; prune.")));
  }
  if (!draft.seed || IsFailureStage(draft.seed->stage.stage())) {
    return Decline(Refusal::kNoSeed, GateLevel::kG0, "no_active_seed",
                   absl::StrCat("Slot ", draft.slot.slot_id, " has no seed."),
                   draft.now);
  }
  const SeedStage from = draft.seed->stage.stage();
  if (!target) target = DefaultNextStage(from);
  if (!target) {
    return Decline(
        Refusal::kIllegalTransition, GateLevel::kG0, "no_valid_transition",
        absl::StrCat("Nothing follows ", StageName(from), "."), draft.now);
  }
  if (!IsLegalTransition(from, *target)) {
    return Decline(Refusal::kIllegalTransition,
                   GateOf(*target).value_or(GateLevel::kG0),
                   "transition_failed",
                   absl::StrCat("A seed in ", StageName(from), " cannot enter ",
                                StageName(*target), "."),
                   draft.now);
  }
  auto verdict = options_.gate_policy.Evaluate(
      *target, GateInputsOf(*draft.seed), draft.now);
  if (!verdict.ok()) return LifecycleResult::Failed(verdict.status());
  draft.step = GatedStep{*target, *std::move(verdict)};
  return LifecycleResult::Done();
}

LifecycleResult SlotLifecycle::DraftFossilization(SlotDraft& draft) const {
  if (draft.seed && draft.seed->stage.stage() != SeedStage::kHolding &&
      !IsFailureStage(draft.seed->stage.stage())) {
    return LifecycleResult::Refused(
        Refusal::kWrongStage,
        absl::StrCat("Only a seed in HOLDING can be fossilised; ",
                     draft.seed->seed_id, " is in ",
                     StageName(draft.seed->stage.stage()), "."));
  }
  LifecycleResult result = DraftAdvance(SeedStage::kFossilized, draft);
  if (draft.step) draft.step->full_alpha = true;
  return result;
}

LifecycleResult SlotLifecycle::DraftTick(SlotDraft& draft) const {
  if (!draft.seed) return LifecycleResult::Done();
  const AutoForward& automatic = options_.auto_forward;
  const int64_t epochs = draft.seed->metrics.epochs_in_stage;
  const int64_t min_epochs =
      options_.gate_policy.thresholds().min_blending_epochs;
  switch (draft.seed->stage.stage()) {
    case SeedStage::kGerminated:
      if (!automatic.g1) return LifecycleResult::Done();
      return DraftAutomaticStep(SeedStage::kTraining, draft);
    case SeedStage::kTraining:
      if (!automatic.g2 || epochs < min_epochs) return LifecycleResult::Done();
      return DraftAutomaticStep(SeedStage::kBlending, draft);
    case SeedStage::kBlending:
      return DraftBlendingTick(draft);
    case SeedStage::kPruned:
    case SeedStage::kEmbargoed:
    case SeedStage::kResetting:
      return DraftCoolingTick(draft);
    default:
      return LifecycleResult::Done();
  }
}

LifecycleResult SlotLifecycle::DraftAutomaticStep(SeedStage target,
                                                  SlotDraft& draft) const {
  LifecycleResult result = DraftAdvance(target, draft);
  // A gate that does not open yet is no failure of the tick.
  if (draft.step) draft.step->optional = true;
  return result;
}

LifecycleResult SlotLifecycle::DraftBlendingTick(SlotDraft& draft) const {
  Seed& seed = *draft.seed;
  const bool arrived = seed.alpha.Step() || seed.alpha.AtTarget();
  seed.metrics.current_alpha = seed.alpha.alpha();
  seed.metrics.alpha_ramp_step = seed.alpha.state().steps_done;
  draft.changed = true;
  if (!arrived) return LifecycleResult::Done();

  if (seed.alpha.state().target <= kArrivedAtZero) {
    const auto or_default = [](const std::string& text, const char* fallback) {
      return text.empty() ? std::string(fallback) : text;
    };
    return DraftPrune(or_default(seed.prune_reason, "scheduled_prune"),
                      or_default(seed.prune_initiator, "policy"), draft);
  }
  const GatePolicy& policy = options_.gate_policy;
  const bool old_enough =
      policy.profile() == GateProfile::kPermissive ||
      seed.metrics.epochs_in_stage >= policy.thresholds().min_blending_epochs;
  if (!options_.auto_forward.g3 || !old_enough) return LifecycleResult::Done();
  return DraftAutomaticStep(SeedStage::kHolding, draft);
}

LifecycleResult SlotLifecycle::DraftCoolingTick(SlotDraft& draft) const {
  Seed& seed = *draft.seed;
  draft.changed = true;
  if (seed.stage.stage() == SeedStage::kPruned) {
    draft.events.push_back(MakeStageChanged(seed, SeedStage::kEmbargoed));
    EnterStage(seed, SeedStage::kEmbargoed, draft.now);
    return LifecycleResult::Done();
  }
  ++seed.metrics.epochs_total;
  ++seed.metrics.epochs_in_stage;
  if (seed.stage.stage() == SeedStage::kResetting) {
    draft.events.push_back(MakeStageChanged(seed, SeedStage::kDormant));
    draft.seed = std::nullopt;
  } else if (++seed.cooldown_ticks >= kEmbargoTicks) {
    draft.events.push_back(MakeStageChanged(seed, SeedStage::kResetting));
    EnterStage(seed, SeedStage::kResetting, draft.now);
  }
  return LifecycleResult::Done();
}

}  // namespace esper::slot
