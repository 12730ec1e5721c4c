#include "core/slot/slot_lifecycle_events.h"

#include <utility>

namespace esper::slot {
namespace {

template <typename Payload>
SlotEvent Wrap(const Seed& seed, Payload payload) {
  SlotEvent event;
  event.slot_id = seed.slot_id;
  event.seed_id = seed.seed_id;
  event.blueprint_id = seed.blueprint_id;
  event.payload = std::move(payload);
  return event;
}

}  // namespace

SlotEvent MakeGerminated(const Seed& seed) {
  SeedGerminated payload;
  payload.trainable_params = seed.metrics.seed_param_count;
  payload.alpha = seed.alpha.alpha();
  payload.tempo = seed.tempo;
  payload.curve = CurveOf(seed.blend_id);
  return Wrap(seed, payload);
}

SlotEvent MakeStageChanged(const Seed& before, SeedStage to) {
  SeedStageChanged payload;
  payload.from = before.stage.stage();
  payload.to = to;
  payload.alpha = before.alpha.alpha();
  if (!IsFailureStage(payload.from)) {
    payload.accuracy_delta = before.metrics.total_improvement();
  }
  payload.epochs_in_stage = before.metrics.epochs_in_stage;
  payload.curve = before.alpha.state().curve;
  if (before.telemetry_epoch > 0) {
    payload.gradient_ratio = before.metrics.gradient_ratio.value_or(0);
    payload.has_vanishing = before.gradients.has_vanishing.value_or(false);
    payload.has_exploding = before.gradients.has_exploding.value_or(false);
  }
  return Wrap(before, payload);
}

SlotEvent MakeGateEvaluated(const Seed& seed, SeedStage target,
                            const GateResult& result) {
  return Wrap(seed, SeedGateEvaluated{target, result});
}

SlotEvent MakeFossilized(const Seed& seed) {
  SeedFossilized payload;
  payload.improvement = seed.metrics.total_improvement();
  payload.params_added = seed.metrics.seed_param_count;
  payload.alpha = seed.alpha.alpha();
  payload.epochs_total = seed.metrics.epochs_total;
  payload.contribution = seed.metrics.contribution;
  payload.blending_delta = seed.metrics.blending_delta();
  return Wrap(seed, payload);
}

SlotEvent MakePruned(const Seed& before, const std::string& reason,
                     const std::string& initiator, bool automatic) {
  SeedPruned payload;
  payload.reason = reason;
  payload.initiator = initiator;
  payload.auto_pruned = automatic;
  payload.improvement = before.metrics.total_improvement();
  payload.epochs_total = before.metrics.epochs_total;
  payload.contribution = before.metrics.contribution;
  payload.blending_delta = before.metrics.blending_delta();
  return Wrap(before, payload);
}

SlotEvent MakeAlgorithmChanged(const Seed& before, AlphaAlgorithm to) {
  return Wrap(before,
              SeedAlgorithmChanged{before.algorithm, to, before.alpha.alpha()});
}

}  // namespace esper::slot
