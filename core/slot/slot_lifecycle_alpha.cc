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

LifecycleResult NoSeed(const SeedSlot& slot) {
  return LifecycleResult::Refused(
      Refusal::kNoSeed, absl::StrCat("Slot ", slot.slot_id(), " is empty."));
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

LifecycleResult SlotLifecycle::SetAlphaLocked(SeedSlot& slot,
                                              double alpha) const {
  if (!slot.seed_) return NoSeed(slot);
  if (IsFailureStage(slot.seed_->stage.stage())) {
    return *RefuseByStage(*slot.seed_);
  }
  Seed seed = *slot.seed_;
  if (absl::Status status = seed.alpha.SetAlpha(alpha); !status.ok()) {
    return LifecycleResult::Failed(std::move(status));
  }
  seed.metrics.current_alpha = seed.alpha.alpha();
  slot.CommitLocked(std::move(seed));
  return LifecycleResult::Done();
}

LifecycleResult SlotLifecycle::SetAlphaTargetLocked(
    SeedSlot& slot, const AlphaTargetRequest& request, Events& events) const {
  if (absl::Status status = CheckFinite("Alpha target", request.target);
      !status.ok()) {
    return LifecycleResult::Failed(std::move(status));
  }
  if (request.target <= 0) {
    return LifecycleResult::Failed(absl::InvalidArgumentError(
        absl::StrCat("Alpha target must be above 0, got ", request.target,
                     "; prune to remove a seed.")));
  }
  if (!slot.seed_) return NoSeed(slot);
  if (auto refusal = RefuseByStage(*slot.seed_)) return *std::move(refusal);
  Seed seed = *slot.seed_;
  const SeedStage stage = seed.stage.stage();
  if (stage != SeedStage::kBlending && stage != SeedStage::kHolding) {
    return LifecycleResult::Refused(
        Refusal::kWrongStage,
        absl::StrCat("Alpha can be retargeted in BLENDING and HOLDING, not in ",
                     StageName(stage), "."));
  }
  if (seed.alpha.mode() != AlphaMode::kHold) return AlphaMoving(seed);

  Events pending;
  if (stage == SeedStage::kHolding && request.target < 1.0 - kAlphaTolerance) {
    pending.push_back(MakeStageChanged(seed, SeedStage::kBlending));
    EnterStage(seed, SeedStage::kBlending, Now());
  }
  if (request.algorithm && *request.algorithm != seed.algorithm) {
    pending.push_back(MakeAlgorithmChanged(seed, *request.algorithm));
    if (absl::Status status =
            SwitchAlgorithm(slot, *request.algorithm, request.steps, seed);
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
  UpdateBlendOutFreeze(seed);
  slot.CommitLocked(std::move(seed));
  for (SlotEvent& event : pending) events.push_back(std::move(event));
  return LifecycleResult::Done();
}

absl::Status SlotLifecycle::SwitchAlgorithm(const SeedSlot& slot,
                                            AlphaAlgorithm to, int64_t steps,
                                            Seed& seed) {
  if (to == AlphaAlgorithm::kGate) {
    auto gate =
        BuildGate(slot.options(), seed.generation, std::max<int64_t>(1, steps),
                  /*nearly_open=*/seed.alpha.alpha() > 0);
    if (!gate.ok()) return gate.status();
    (*gate)->train(slot.is_training());
    seed.gate = *std::move(gate);
    seed.blend_id = BlendId::kGated;
  } else if (seed.algorithm == AlphaAlgorithm::kGate) {
    seed.gate = nullptr;
    seed.blend_id = BlendId::kLinear;  // The curve that gated seeds ramp by.
  }
  seed.algorithm = to;
  return absl::OkStatus();
}

LifecycleResult SlotLifecycle::SchedulePruneLocked(SeedSlot& slot,
                                                   const PruneRequest& request,
                                                   Events& events) const {
  if (absl::Status status = CheckFinite("Steepness", request.steepness);
      !status.ok()) {
    return LifecycleResult::Failed(std::move(status));
  }
  if (!slot.seed_) return NoSeed(slot);
  if (auto refusal = RefuseByStage(*slot.seed_)) return *std::move(refusal);
  Seed seed = *slot.seed_;
  const SeedStage stage = seed.stage.stage();
  const bool at_once = request.steps <= 0 || seed.alpha.alpha() <= 0;
  if (!at_once && seed.alpha.mode() != AlphaMode::kHold) {
    return AlphaMoving(seed);
  }
  if (at_once ||
      (stage != SeedStage::kHolding && stage != SeedStage::kBlending)) {
    return PruneLocked(slot, request.reason, request.initiator, events);
  }

  Events pending;
  if (stage == SeedStage::kHolding) {
    pending.push_back(MakeStageChanged(seed, SeedStage::kBlending));
    EnterStage(seed, SeedStage::kBlending, Now());
  }
  if (absl::Status status = seed.alpha.Retarget(0, request.steps, request.curve,
                                                request.steepness);
      !status.ok()) {
    return LifecycleResult::Failed(std::move(status));
  }
  seed.prune_reason = request.reason;
  seed.prune_initiator = request.initiator;
  UpdateBlendOutFreeze(seed);
  slot.CommitLocked(std::move(seed));
  for (SlotEvent& event : pending) events.push_back(std::move(event));
  return LifecycleResult::Done();
}

LifecycleResult SlotLifecycle::PruneLocked(SeedSlot& slot,
                                           const std::string& reason,
                                           const std::string& initiator,
                                           Events& events) const {
  if (!slot.seed_) return NoSeed(slot);
  if (auto refusal = RefuseByStage(*slot.seed_)) return *std::move(refusal);
  const bool automatic = IsAutomaticPruneReason(reason);
  Seed seed = *slot.seed_;
  SlotEvent changed = MakeStageChanged(seed, SeedStage::kPruned);
  SlotEvent pruned = MakePruned(seed, reason, initiator, automatic);
  if (!ApplyPrune(seed, automatic, reason, Now())) {
    return LifecycleResult::Refused(
        Refusal::kIllegalTransition,
        absl::StrCat("A seed in ", StageName(slot.seed_->stage.stage()),
                     " cannot be pruned."));
  }
  slot.CommitLocked(std::move(seed));
  if (automatic) slot.auto_prune_ = reason;
  events.push_back(std::move(changed));
  events.push_back(std::move(pruned));
  return LifecycleResult::Done();
}

}  // namespace esper::slot
