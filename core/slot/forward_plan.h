#ifndef ESPER_CORE_SLOT_FORWARD_PLAN_H_
#define ESPER_CORE_SLOT_FORWARD_PLAN_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "core/slot/alpha.h"
#include "core/slot/gate_network.h"
#include "core/slot/health_probe.h"
#include "core/slot/seed_module.h"
#include "core/slot/stage.h"

namespace esper::slot {

// What to do when a seed trains but can get no gradient because it is frozen.
enum class SteGuard { kWarn, kThrow, kOff };

// How one forward pass sees a slot, without changing it.
struct SlotView {
  // Floating, 0-dim or [B, 1, 1, 1] / [B, 1, 1], in [0, 1]: the blend weight to
  // use instead of the slot's own. Undefined = the slot's own.
  at::Tensor alpha_override;
  // The caller guarantees that the override is 0 for every sample, so that
  // the seed may be skipped where no gradient is needed.
  bool override_is_zero = false;

  // What a ForceAlpha scope adds; SeedSlot::Resolve fills it in.
  bool resolved = false;
  std::optional<double> forced_alpha;  // For every sample.
  // Of the seed that it is meant for; null for an empty slot.
  std::shared_ptr<const HealthProbe> forced_seed;
};

// All that a forward pass needs of a seed, frozen at one moment: alpha, stage,
// operator and networks that belong together. Immutable; keeps the networks
// alive while a forward pass uses them.
struct ForwardPlan {
  std::string slot_id;
  std::string seed_id;
  std::string blueprint_id;
  SeedStage stage = SeedStage::kUnknown;
  AlphaAlgorithm algorithm = AlphaAlgorithm::kAdd;
  // The seed reads a detached input.
  bool isolated = false;
  // A detached input that is not contiguous is copied first.
  bool copy_detached_input = true;
  double alpha_value = 0;
  // 0-dim, the slot's device and dtype; undefined unless the stage is active.
  at::Tensor alpha;
  // float64, 0-dim, the slot's device: where alpha is found at any time, in
  // one and the same place for the life of the slot. Only forwards that are
  // being captured read it; see SeedSlot.
  at::Tensor alpha_buffer;
  std::shared_ptr<SeedModule> seed;
  std::shared_ptr<const GateNetwork> gate;  // Null unless GATE.
  std::vector<at::Tensor> parameters;       // Of the seed alone.
  std::shared_ptr<HealthProbe> probe;
  // Held shared by a forward pass that builds a graph through the networks, and
  // exclusively by what changes `requires_grad` of their parameters.
  std::shared_ptr<absl::Mutex> trainability;
  SteGuard ste_guard = SteGuard::kWarn;
  // Identity of the seed; changes with every germination in the slot.
  uint64_t generation = 0;
  // A ramp down has frozen the parameters.
  bool frozen = false;
  // Changes whenever a forward pass would run other operators or networks
  // than before; alpha alone does not change it.
  uint64_t structure = 0;

  // The seed learns behind the host by the straight-through estimator.
  bool straight_through() const {
    return stage == SeedStage::kTraining && alpha_value == 0;
  }
};

// Whether forwards of both plans run the same operators on the same networks.
bool SameStructure(const ForwardPlan& a, const ForwardPlan& b);

// Whether a forward pass of the calling thread leaves the features as they are:
// no seed is active, or nothing of it can show and no gradient is wanted.
// Throws Error (STALE_SEED) as RunForwardPlan does.
bool PassesThrough(const ForwardPlan& plan, const SlotView& view);

// Runs `host` through the slot. `training`: the slot's own mode.
// host: floating [B, C, H, W] or [B, T, C]; returns the same shape, dtype and
// device; grad to host, seed parameters and override. Returns `host` itself
// where the plan passes it through. ShapeError for an override or a seed
// output of another shape; GradientContractError (FROZEN_SEED) under
// SteGuard::kThrow; Error (STALE_SEED) if the view forces the alpha of another
// seed than the plan's. Under graph capture health is not looked at.
at::Tensor RunForwardPlan(const ForwardPlan& plan, const at::Tensor& host,
                          const SlotView& view, bool training);

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_FORWARD_PLAN_H_
