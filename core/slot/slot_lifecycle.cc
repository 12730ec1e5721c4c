#include "core/slot/slot_lifecycle.h"

#include <exception>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "core/error.h"
#include "core/slot/slot_lifecycle_events.h"

namespace esper::slot {
namespace {

// An esper::Error keeps its code and detail; anything else is our fault.
absl::Status StatusOf(const std::exception& exception) {
  if (const auto* error = dynamic_cast<const Error*>(&exception)) {
    return ToStatus(*error);
  }
  return absl::InternalError(exception.what());
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

SlotLifecycle SlotLifecycle::WithIdentity(MutationIdentity identity) const {
  SlotLifecycle marked = *this;
  marked.identity_ = std::move(identity);
  return marked;
}

absl::Time SlotLifecycle::Now() const {
  return options_.clock ? options_.clock() : absl::Now();
}

uint64_t SlotLifecycle::HashConfig(const SeedSlot::Options& slot,
                                   const DecisionHash& request) const {
  const GateThresholds& thresholds = options_.gate_policy.thresholds();
  return DecisionHash()
      .Add(request.value())
      .Add(uint64_t(slot.channels))
      .Add(uint64_t(slot.topology))
      .Add(uint64_t(slot.dtype))
      .Add(uint64_t(slot.init_profile))
      .Add(slot.init_seed)
      .Add(uint64_t(options_.gate_policy.profile()))
      .Add(thresholds.min_improvement)
      .Add(uint64_t(thresholds.min_blending_epochs))
      .Add(thresholds.min_gradient_ratio)
      .Add(thresholds.min_gradient_health)
      .Add(thresholds.min_contribution)
      .Add(thresholds.alpha_tolerance)
      .Add(uint64_t(thresholds.improvement_from_contribution))
      .Add(uint64_t(options_.auto_forward.g1))
      .Add(uint64_t(options_.auto_forward.g2))
      .Add(uint64_t(options_.auto_forward.g3))
      .value();
}

template <typename Body>
LifecycleResult SlotLifecycle::Run(SeedSlot& slot, Decision decision,
                                   const DecisionHash& request,
                                   Body body) const {
  std::vector<SlotEvent> events;
  const LifecycleResult result = [&] {
    absl::MutexLock lock(&slot.mu_);
    DecisionKey key;
    key.slot_id = slot.slot_id();
    key.decision = decision;
    key.sequence = slot.sequence_++;
    if (slot.seed_) {
      key.from = slot.seed_->stage.stage();
      key.generation = slot.seed_->generation;
    }
    SlotDraft draft{slot.options(), slot.is_training(), slot.germinations_};
    const auto work_out = [&] {
      draft.now = Now();
      draft.seed = slot.seed_;
      return body(draft);
    };
    LifecycleResult drafted = LifecycleResult::Done();
    if (options_.synchronizer == nullptr) {
      drafted = work_out();
    } else {
      // Every rank comes to the exchange, whatever happened to it, so that
      // none waits in vain.
      try {
        drafted = work_out();
      } catch (const std::exception& exception) {
        drafted = LifecycleResult::Failed(StatusOf(exception));
      }
      LocalOutcome local{drafted.status(), drafted.refusal(), std::nullopt};
      if (drafted.ok() && draft.step) {
        key.target = draft.step->target;
        local.verdict = draft.step->verdict;
      }
      key.config_hash = HashConfig(slot.options(), request);
      auto agreed = options_.synchronizer->Agree(key, local);
      if (!agreed.ok()) return LifecycleResult::Failed(agreed.status());
      if (local.verdict && *agreed) draft.step->verdict = **std::move(agreed);
    }
    if (!drafted.ok()) return drafted;
    if (draft.step) drafted = TakeStep(draft);
    events = std::move(draft.events);
    if (!drafted.ok() || !draft.changed) return drafted;
    if (draft.seed) UpdateBlendOutFreeze(*draft.seed);
    slot.germinations_ = draft.germinations;
    if (draft.auto_prune) slot.auto_prune_ = std::move(draft.auto_prune);
    slot.CommitLocked(std::move(draft.seed));
    return drafted;
  }();
  Deliver(std::move(events));
  return result;
}

void SlotLifecycle::Deliver(std::vector<SlotEvent> events) const {
  if (options_.events == nullptr) return;
  for (SlotEvent& event : events) {
    if (!std::holds_alternative<SeedGateEvaluated>(event.payload)) {
      event.identity = identity_;
    }
    options_.events->OnEvent(event);
  }
}

LifecycleResult SlotLifecycle::TakeStep(SlotDraft& draft) {
  const GatedStep& step = *draft.step;
  const GateResult& verdict = step.verdict;
  Seed& seed = *draft.seed;
  draft.events.push_back(MakeGateEvaluated(seed, step.target, verdict));
  if (!verdict.passed) {
    if (step.optional) return LifecycleResult::Done(verdict);
    return LifecycleResult::Refused(Refusal::kGateFailed, verdict.message,
                                    verdict);
  }
  SlotEvent changed = MakeStageChanged(seed, step.target);
  if (!EnterStage(seed, step.target, draft.now)) {
    return LifecycleResult::Failed(absl::InternalError(
        absl::StrCat("A gate opened for an illegal step to ",
                     StageName(step.target), " in slot ", seed.slot_id, ".")));
  }
  draft.changed = true;
  draft.events.push_back(std::move(changed));
  if (step.target == SeedStage::kFossilized) {
    draft.events.push_back(MakeFossilized(seed));
  }
  if (step.full_alpha) {
    seed.alpha.RestAt(1.0);
    seed.metrics.current_alpha = 1.0;
  }
  return LifecycleResult::Done(verdict);
}

LifecycleResult SlotLifecycle::Germinate(
    SeedSlot& slot, const GerminateRequest& request) const {
  DecisionHash hash;
  hash.Add(request.blueprint_id)
      .Add(request.seed_id)
      .Add(request.blend_id)
      .Add(uint64_t(request.tempo))
      .Add(uint64_t(request.algorithm))
      .Add(request.alpha_target.value_or(1.0));
  for (const auto& [name, value] : request.values) {
    hash.Add(name).Add(uint64_t(value));
  }
  return Run(slot, Decision::kGerminate, hash, [&](SlotDraft& draft) {
    return DraftGermination(request, draft);
  });
}

LifecycleResult SlotLifecycle::Advance(SeedSlot& slot,
                                       std::optional<SeedStage> target) const {
  const DecisionHash hash = DecisionHash()
                                .Add(uint64_t(target.has_value()))
                                .Add(uint64_t(target.value_or(SeedStage{})));
  return Run(slot, Decision::kAdvance, hash,
             [&](SlotDraft& draft) { return DraftAdvance(target, draft); });
}

LifecycleResult SlotLifecycle::Fossilize(SeedSlot& slot) const {
  return Run(slot, Decision::kFossilize, DecisionHash(),
             [&](SlotDraft& draft) { return DraftFossilization(draft); });
}

LifecycleResult SlotLifecycle::Tick(SeedSlot& slot) const {
  return Run(slot, Decision::kTick, DecisionHash(),
             [&](SlotDraft& draft) { return DraftTick(draft); });
}

LifecycleResult SlotLifecycle::SetAlpha(SeedSlot& slot, double alpha) const {
  return Run(slot, Decision::kSetAlpha, DecisionHash().Add(alpha),
             [&](SlotDraft& draft) { return DraftAlpha(alpha, draft); });
}

LifecycleResult SlotLifecycle::SetAlphaTarget(
    SeedSlot& slot, const AlphaTargetRequest& request) const {
  const DecisionHash hash =
      DecisionHash()
          .Add(request.target)
          .Add(uint64_t(request.steps))
          .Add(uint64_t(request.curve.value_or(AlphaCurve{})))
          .Add(request.steepness)
          .Add(uint64_t(request.algorithm.value_or(AlphaAlgorithm{})));
  return Run(slot, Decision::kSetAlphaTarget, hash, [&](SlotDraft& draft) {
    return DraftAlphaTarget(request, draft);
  });
}

LifecycleResult SlotLifecycle::SchedulePrune(
    SeedSlot& slot, const PruneRequest& request) const {
  const DecisionHash hash =
      DecisionHash()
          .Add(uint64_t(request.steps))
          .Add(uint64_t(request.curve.value_or(AlphaCurve{})))
          .Add(request.steepness)
          .Add(request.reason)
          .Add(request.initiator);
  return Run(slot, Decision::kSchedulePrune, hash, [&](SlotDraft& draft) {
    return DraftScheduledPrune(request, draft);
  });
}

LifecycleResult SlotLifecycle::Prune(SeedSlot& slot, const std::string& reason,
                                     const std::string& initiator) const {
  return Run(
      slot, Decision::kPrune, DecisionHash().Add(reason).Add(initiator),
      [&](SlotDraft& draft) { return DraftPrune(reason, initiator, draft); });
}

}  // namespace esper::slot
