// The lifecycle calls that move alpha, up, down or out.

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/slot/slot_lifecycle.h"
#include "core/slot/slot_lifecycle_events.h"

namespace esper::slot {
namespace {

LifecycleResult NoSeed(const SlotDraft& draft) {
  return LifecycleResult::Refused(
      Refusal::kNoSeed,
      absl::StrCat("Slot ", draft.slot.slot_id, " is empty."));
}

// Why no seed of this stage may lose or change its weight; absent if it may.
std::optional<LifecycleResult> RefuseByStage(const Seed& seed) {
  const SeedStage stage = seed.stage.stage();
  if (stage == SeedStage::kFossilized) {
    return LifecycleResult::Refused(
        Refusal::kFossilized,
        absl::StrCat("Seed ", seed.seed_id, " is fossilised."));
  }
  if (IsFailureStage(stage)) {
    return LifecycleResult::Refused(
        Refusal::kCoolingDown,
        absl::StrCat("Slot ", seed.slot_id, " is cooling down (",
                     StageName(stage), ")."));
  }
  return std::nullopt;
}

LifecycleResult AlphaMoving(const Seed& seed) {
  return LifecycleResult::Refused(
      Refusal::kAlphaMoving,
      absl::StrCat("Alpha of seed ", seed.seed_id, " moves to ",
                   seed.alpha.state().target, " for ",
                   seed.alpha.time_to_target(), " more steps."));
}

absl::Status CheckFinite(const char* what, double value) {
  if (std::isfinite(value)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, " must be finite, got ", value, "."));
}

}  // namespace

LifecycleResult SlotLifecycle::DraftAlpha(double alpha,
                                          SlotDraft& draft) const {
  if (!draft.seed) return NoSeed(draft);
  Seed& seed = *draft.seed;
  if (IsFailureStage(seed.stage.stage())) return *RefuseByStage(seed);
  if (absl::Status status = seed.alpha.SetAlpha(alpha); !status.ok()) {
    return LifecycleResult::Failed(std::move(status));
  }
  seed.metrics.current_alpha = seed.alpha.alpha();
  draft.changed = true;
  return LifecycleResult::Done();
}

LifecycleResult SlotLifecycle::DraftAlphaTarget(
    const AlphaTargetRequest& request, SlotDraft& draft) const {
  if (absl::Status status = CheckFinite("Alpha target", request.target);
      !status.ok()) {
    return LifecycleResult::Failed(std::move(status));
  }
  if (request.target <= 0) {
    return LifecycleResult::Failed(absl::InvalidArgumentError(
        absl::StrCat("Alpha target must be above 0, got ", request.target,
                     "; prune to remove a seed.")));
  }
  if (!draft.seed) return NoSeed(draft);
  Seed& seed = *draft.seed;
  if (auto refusal = RefuseByStage(seed)) return *std::move(refusal);
  const SeedStage stage = seed.stage.stage();
  if (stage != SeedStage::kBlending && stage != SeedStage::kHolding) {
    return LifecycleResult::Refused(
        Refusal::kWrongStage,
        absl::StrCat("Alpha can be retargeted in BLENDING and HOLDING, not in ",
                     StageName(stage), "."));
  }
  if (seed.alpha.mode() != AlphaMode::kHold) return AlphaMoving(seed);

  if (stage == SeedStage::kHolding && request.target < 1.0 - kAlphaTolerance) {
    draft.events.push_back(MakeStageChanged(seed, SeedStage::kBlending));
    EnterStage(seed, SeedStage::kBlending, draft.now);
  }
  if (request.algorithm && *request.algorithm != seed.algorithm) {
    draft.events.push_back(MakeAlgorithmChanged(seed, *request.algorithm));
    if (absl::Status status =
            SwitchAlgorithm(*request.algorithm, request.steps, draft);
        !status.ok()) {
      return LifecycleResult::Failed(std::move(status));
    }
  }
  if (absl::Status status = seed.alpha.Retarget(
          request.target, request.steps, request.curve, request.steepness);
      !status.ok()) {
    return LifecycleResult::Failed(std::move(status));
  }
  seed.metrics.current_alpha = seed.alpha.alpha();
  draft.changed = true;
  return LifecycleResult::Done();
}

absl::Status SlotLifecycle::SwitchAlgorithm(AlphaAlgorithm to, int64_t steps,
                                            SlotDraft& draft) {
  Seed& seed = *draft.seed;
  if (to == AlphaAlgorithm::kGate) {
    auto gate =
        BuildGate(draft.slot, seed.generation, std::max<int64_t>(1, steps),
                  /*nearly_open=*/seed.alpha.alpha() > 0);
    if (!gate.ok()) return gate.status();
    (*gate)->train(draft.training);
    seed.gate = *std::move(gate);
    seed.blend_id = BlendId::kGated;
  } else if (seed.algorithm == AlphaAlgorithm::kGate) {
    seed.gate = nullptr;
    seed.blend_id = BlendId::kLinear;  // The curve that gated seeds ramp by.
  }
  seed.algorithm = to;
  return absl::OkStatus();
}

LifecycleResult SlotLifecycle::DraftScheduledPrune(const PruneRequest& request,
                                                   SlotDraft& draft) const {
  if (absl::Status status = CheckFinite("Steepness", request.steepness);
      !status.ok()) {
    return LifecycleResult::Failed(std::move(status));
  }
  if (!draft.seed) return NoSeed(draft);
  Seed& seed = *draft.seed;
  if (auto refusal = RefuseByStage(seed)) return *std::move(refusal);
  const SeedStage stage = seed.stage.stage();
  const bool at_once = request.steps <= 0 || seed.alpha.alpha() <= 0;
  if (!at_once && seed.alpha.mode() != AlphaMode::kHold) {
    return AlphaMoving(seed);
  }
  if (at_once ||
      (stage != SeedStage::kHolding && stage != SeedStage::kBlending)) {
    return DraftPrune(request.reason, request.initiator, draft);
  }

  if (stage == SeedStage::kHolding) {
    draft.events.push_back(MakeStageChanged(seed, SeedStage::kBlending));
    EnterStage(seed, SeedStage::kBlending, draft.now);
  }
  if (absl::Status status = seed.alpha.Retarget(0, request.steps, request.curve,
                                                request.steepness);
      !status.ok()) {
    return LifecycleResult::Failed(std::move(status));
  }
  seed.prune_reason = request.reason;
  seed.prune_initiator = request.initiator;
  draft.changed = true;
  return LifecycleResult::Done();
}

LifecycleResult SlotLifecycle::DraftPrune(const std::string& reason,
                                          const std::string& initiator,
                                          SlotDraft& draft) const {
  if (!draft.seed) return NoSeed(draft);
  Seed& seed = *draft.seed;
  if (auto refusal = RefuseByStage(seed)) return *std::move(refusal);
  const bool automatic = IsAutomaticPruneReason(reason);
  SlotEvent changed = MakeStageChanged(seed, SeedStage::kPruned);
  SlotEvent pruned = MakePruned(seed, reason, initiator, automatic);
  const SeedStage stage = seed.stage.stage();
  if (!ApplyPrune(seed, automatic, reason, draft.now)) {
    return LifecycleResult::Refused(
        Refusal::kIllegalTransition,
        absl::StrCat("A seed in ", StageName(stage), " cannot be pruned."));
  }
  draft.changed = true;
  if (automatic) draft.auto_prune = reason;
  draft.events.push_back(std::move(changed));
  draft.events.push_back(std::move(pruned));
  return LifecycleResult::Done();
}

}  // namespace esper::slot
