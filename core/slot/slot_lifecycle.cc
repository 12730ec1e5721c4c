#include "core/slot/slot_lifecycle.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "core/slot/slot_lifecycle_events.h"

namespace esper::slot {
namespace {

constexpr double kArrivedAtZero = 1e-6;

GateResult FailedVerdict(GateLevel level, const char* check,
                         const std::string& message, absl::Time now) {
  GateResult result;
  result.level = level;
  result.checks_failed.push_back(check);
  result.message = message;
  result.at = now;
  return result;
}

// What this rank thinks of an advance.
struct LocalVerdict {
  absl::StatusOr<GateResult> result;
  Refusal refusal = Refusal::kGateFailed;  // If `result` has not passed.
  SeedStage target = SeedStage::kUnknown;
  bool gate_evaluated = false;
};

LocalVerdict Judge(const GatePolicy& policy, const std::optional<Seed>& seed,
                   const std::string& slot_id, std::optional<SeedStage> target,
                   absl::Time now) {
  LocalVerdict verdict{GateResult()};
  if (target && IsFailureStage(*target)) {
    verdict.target = *target;
    verdict.result = absl::InvalidArgumentError(absl::StrCat(
        "Advancing to ", StageName(*target), " is not possible; prune."));
    return verdict;
  }
  if (!seed || IsFailureStage(seed->stage.stage())) {
    verdict.refusal = Refusal::kNoSeed;
    verdict.target = target.value_or(SeedStage::kUnknown);
    verdict.result =
        FailedVerdict(GateLevel::kG0, "no_active_seed",
                      absl::StrCat("Slot ", slot_id, " has no seed."), now);
    return verdict;
  }
  const SeedStage from = seed->stage.stage();
  if (!target) target = DefaultNextStage(from);
  if (!target) {
    verdict.refusal = Refusal::kIllegalTransition;
    verdict.result = FailedVerdict(
        GateLevel::kG0, "no_valid_transition",
        absl::StrCat("Nothing follows ", StageName(from), "."), now);
    return verdict;
  }
  verdict.target = *target;
  if (!IsLegalTransition(from, *target)) {
    verdict.refusal = Refusal::kIllegalTransition;
    verdict.result = FailedVerdict(
        GateOf(*target).value_or(GateLevel::kG0), "transition_failed",
        absl::StrCat("A seed in ", StageName(from), " cannot enter ",
                     StageName(*target), "."),
        now);
    return verdict;
  }
  verdict.gate_evaluated = true;
  verdict.result = policy.Evaluate(*target, GateInputsOf(*seed), now);
  return verdict;
}

}  // namespace

bool IsAutomaticPruneReason(const std::string& reason) {
  return reason == "governor_nan" || reason == "governor_lobotomy" ||
         reason == "governor_divergence" || reason == "governor_rollback";
}

absl::StatusOr<SlotLifecycle> SlotLifecycle::Create(const Options& options) {
  if (options.registry == nullptr) {
    return absl::InvalidArgumentError(
        "A slot lifecycle needs a blueprint registry.");
  }
  return SlotLifecycle(options);
}

absl::Time SlotLifecycle::Now() const {
  return options_.clock ? options_.clock() : absl::Now();
}

template <typename Body>
LifecycleResult SlotLifecycle::Run(SeedSlot& slot, Body body) const {
  Events events;
  LifecycleResult result = [&] {
    absl::MutexLock lock(&slot.mu_);
    return body(events);
  }();
  if (options_.events != nullptr) {
    for (const SlotEvent& event : events) options_.events->OnEvent(event);
  }
  return result;
}

LifecycleResult SlotLifecycle::Germinate(
    SeedSlot& slot, const GerminateRequest& request) const {
  return Run(slot, [&](Events& events) {
    return GerminateLocked(slot, request, events);
  });
}

LifecycleResult SlotLifecycle::Advance(SeedSlot& slot,
                                       std::optional<SeedStage> target) const {
  return Run(slot, [&](Events& events) {
    return AdvanceLocked(slot, target, events);
  });
}

LifecycleResult SlotLifecycle::Fossilize(SeedSlot& slot) const {
  return Run(slot,
             [&](Events& events) { return FossilizeLocked(slot, events); });
}

LifecycleResult SlotLifecycle::Tick(SeedSlot& slot) const {
  return Run(slot, [&](Events& events) { return TickLocked(slot, events); });
}

LifecycleResult SlotLifecycle::SetAlpha(SeedSlot& slot, double alpha) const {
  return Run(slot, [&](Events&) { return SetAlphaLocked(slot, alpha); });
}

LifecycleResult SlotLifecycle::SetAlphaTarget(
    SeedSlot& slot, const AlphaTargetRequest& request) const {
  return Run(slot, [&](Events& events) {
    return SetAlphaTargetLocked(slot, request, events);
  });
}

LifecycleResult SlotLifecycle::SchedulePrune(
    SeedSlot& slot, const PruneRequest& request) const {
  return Run(slot, [&](Events& events) {
    return SchedulePruneLocked(slot, request, events);
  });
}

LifecycleResult SlotLifecycle::Prune(SeedSlot& slot, const std::string& reason,
                                     const std::string& initiator) const {
  return Run(slot, [&](Events& events) {
    return PruneLocked(slot, reason, initiator, events);
  });
}

LifecycleResult SlotLifecycle::GerminateLocked(SeedSlot& slot,
                                               const GerminateRequest& request,
                                               Events& events) const {
  if (slot.seed_) {
    return LifecycleResult::Refused(
        Refusal::kSlotOccupied,
        absl::StrCat("Slot ", slot.slot_id(), " holds ", slot.seed_->seed_id,
                     " (", StageName(slot.seed_->stage.stage()), ")."));
  }
  const absl::Time now = Now();
  auto seed = BuildSeed(slot.options(), *options_.registry, request,
                        slot.germinations_ + 1, now);
  if (!seed.ok()) return LifecycleResult::Failed(seed.status());
  auto gate = options_.gate_policy.Evaluate(SeedStage::kGerminated,
                                            GateInputsOf(*seed), now);
  if (!gate.ok()) return LifecycleResult::Failed(gate.status());
  if (!gate->passed) {
    return LifecycleResult::Refused(Refusal::kGateFailed, gate->message, *gate);
  }
  EnterStage(*seed, SeedStage::kGerminated, now);
  seed->module->train(slot.is_training());
  if (seed->gate) seed->gate->train(slot.is_training());
  ++slot.germinations_;
  slot.CommitLocked(*std::move(seed));
  events.push_back(MakeGerminated(*slot.seed_));
  return LifecycleResult::Done(*std::move(gate));
}

LifecycleResult SlotLifecycle::AdvanceLocked(SeedSlot& slot,
                                             std::optional<SeedStage> target,
                                             Events& events) const {
  const absl::Time now = Now();
  const LocalVerdict local =
      Judge(options_.gate_policy, slot.seed_, slot.slot_id(), target, now);

  // Every rank comes here, whatever it thinks, so that none waits in vain.
  DecisionKey key;
  key.slot_id = slot.slot_id();
  key.sequence = slot.sequence_++;
  key.target = local.target;
  if (slot.seed_) {
    key.from = slot.seed_->stage.stage();
    key.generation = slot.seed_->generation;
  }
  LocalGateSynchronizer alone;
  GateSynchronizer& synchronizer =
      options_.synchronizer != nullptr ? *options_.synchronizer : alone;
  absl::StatusOr<GateResult> verdict = synchronizer.Agree(key, local.result);
  if (!verdict.ok()) return LifecycleResult::Failed(verdict.status());
  if (local.gate_evaluated) {
    events.push_back(MakeGateEvaluated(*slot.seed_, local.target, *verdict));
  }
  if (!verdict->passed) {
    return LifecycleResult::Refused(local.refusal, verdict->message, *verdict);
  }

  Seed seed = *slot.seed_;
  SlotEvent changed = MakeStageChanged(seed, local.target);
  if (!EnterStage(seed, local.target, now)) {
    return LifecycleResult::Failed(absl::InternalError(absl::StrCat(
        "The ranks agreed on an illegal step to ", StageName(local.target),
        " in slot ", slot.slot_id(), ".")));
  }
  slot.CommitLocked(std::move(seed));
  events.push_back(std::move(changed));
  if (local.target == SeedStage::kFossilized) {
    events.push_back(MakeFossilized(*slot.seed_));
  }
  return LifecycleResult::Done(*std::move(verdict));
}

LifecycleResult SlotLifecycle::FossilizeLocked(SeedSlot& slot,
                                               Events& events) const {
  if (slot.seed_ && slot.seed_->stage.stage() != SeedStage::kHolding &&
      !IsFailureStage(slot.seed_->stage.stage())) {
    return LifecycleResult::Refused(
        Refusal::kWrongStage,
        absl::StrCat("Only a seed in HOLDING can be fossilised; ",
                     slot.seed_->seed_id, " is in ",
                     StageName(slot.seed_->stage.stage()), "."));
  }
  LifecycleResult result = AdvanceLocked(slot, SeedStage::kFossilized, events);
  if (!result.ok()) return result;
  Seed seed = *slot.seed_;
  seed.alpha.RestAt(1.0);
  seed.metrics.current_alpha = 1.0;
  slot.CommitLocked(std::move(seed));
  return result;
}

LifecycleResult SlotLifecycle::TickLocked(SeedSlot& slot,
                                          Events& events) const {
  if (!slot.seed_) return LifecycleResult::Done();
  const AutoForward& automatic = options_.auto_forward;
  const int64_t epochs = slot.seed_->metrics.epochs_in_stage;
  const int64_t min_epochs =
      options_.gate_policy.thresholds().min_blending_epochs;
  switch (slot.seed_->stage.stage()) {
    case SeedStage::kGerminated:
      if (!automatic.g1) return LifecycleResult::Done();
      return TryAdvanceLocked(slot, SeedStage::kTraining, events);
    case SeedStage::kTraining:
      if (!automatic.g2 || epochs < min_epochs) return LifecycleResult::Done();
      return TryAdvanceLocked(slot, SeedStage::kBlending, events);
    case SeedStage::kBlending:
      return TickBlendingLocked(slot, events);
    case SeedStage::kPruned:
    case SeedStage::kEmbargoed:
    case SeedStage::kResetting:
      return TickCoolingLocked(slot, events);
    default:
      return LifecycleResult::Done();
  }
}

LifecycleResult SlotLifecycle::TryAdvanceLocked(SeedSlot& slot,
                                                SeedStage target,
                                                Events& events) const {
  LifecycleResult result = AdvanceLocked(slot, target, events);
  // A gate that does not open yet is no failure of the tick.
  return result.refused() ? LifecycleResult::Done(result.gate()) : result;
}

LifecycleResult SlotLifecycle::TickBlendingLocked(SeedSlot& slot,
                                                  Events& events) const {
  Seed seed = *slot.seed_;
  const bool arrived = seed.alpha.Step() || seed.alpha.AtTarget();
  seed.metrics.current_alpha = seed.alpha.alpha();
  seed.metrics.alpha_ramp_step = seed.alpha.state().steps_done;
  UpdateBlendOutFreeze(seed);
  const int64_t epochs = seed.metrics.epochs_in_stage;
  const double target = seed.alpha.state().target;
  slot.CommitLocked(std::move(seed));
  if (!arrived) return LifecycleResult::Done();

  if (target <= kArrivedAtZero) {
    const auto or_default = [](const std::string& text, const char* fallback) {
      return text.empty() ? std::string(fallback) : text;
    };
    return PruneLocked(
        slot, or_default(slot.seed_->prune_reason, "scheduled_prune"),
        or_default(slot.seed_->prune_initiator, "policy"), events);
  }
  const GatePolicy& policy = options_.gate_policy;
  const bool old_enough = policy.profile() == GateProfile::kPermissive ||
                          epochs >= policy.thresholds().min_blending_epochs;
  if (!options_.auto_forward.g3 || !old_enough) return LifecycleResult::Done();
  return TryAdvanceLocked(slot, SeedStage::kHolding, events);
}

LifecycleResult SlotLifecycle::TickCoolingLocked(SeedSlot& slot,
                                                 Events& events) const {
  const absl::Time now = Now();
  Seed seed = *slot.seed_;
  if (seed.stage.stage() == SeedStage::kPruned) {
    events.push_back(MakeStageChanged(seed, SeedStage::kEmbargoed));
    EnterStage(seed, SeedStage::kEmbargoed, now);
    slot.CommitLocked(std::move(seed));
    return LifecycleResult::Done();
  }
  ++seed.metrics.epochs_total;
  ++seed.metrics.epochs_in_stage;
  if (seed.stage.stage() == SeedStage::kResetting) {
    events.push_back(MakeStageChanged(seed, SeedStage::kDormant));
    slot.CommitLocked(std::nullopt);
    return LifecycleResult::Done();
  }
  if (++seed.cooldown_ticks >= kEmbargoTicks) {
    events.push_back(MakeStageChanged(seed, SeedStage::kResetting));
    EnterStage(seed, SeedStage::kResetting, now);
  }
  slot.CommitLocked(std::move(seed));
  return LifecycleResult::Done();
}

}  // namespace esper::slot
