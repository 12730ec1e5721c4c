#ifndef ESPER_CORE_SLOT_GERMINATION_H_
#define ESPER_CORE_SLOT_GERMINATION_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/slot/alpha.h"
#include "core/slot/blueprint.h"
#include "core/slot/gate_network.h"
#include "core/slot/seed.h"
#include "core/slot/seed_slot.h"

namespace esper::slot {

// What to plant.
struct GerminateRequest {
  std::string blueprint_id;
  std::string seed_id;               // Empty: "<slot>-<blueprint>".
  std::string blend_id = "sigmoid";  // "linear", "sigmoid" or "gated".
  int64_t tempo = 5;                 // Epochs of the ramp, >= 1.
  AlphaAlgorithm algorithm = AlphaAlgorithm::kAdd;  // GATE <=> "gated".
  std::optional<double> alpha_target;               // In (0, 1]; absent = 1.
  std::map<std::string, int64_t> values;            // Options of the blueprint.
};

// Builds a complete seed in stage DORMANT for a slot, aside from it. A pure
// function of its arguments: parameters start from `options.init_seed`, the
// slot's id and `generation`, and every global generator is left as it was.
// Errors: those of SlotLifecycle::Germinate.
absl::StatusOr<Seed> BuildSeed(const SeedSlot::Options& options,
                               const BlueprintRegistry& registry,
                               const GerminateRequest& request,
                               uint64_t generation, absl::Time now);

// Builds the gate network of a seed that blends by GATE, reproducibly as
// above. `nearly_open`: see GateNetwork::OpenNearly.
absl::StatusOr<std::shared_ptr<GateNetwork>> BuildGate(
    const SeedSlot::Options& options, uint64_t generation, int64_t total_steps,
    bool nearly_open);

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_GERMINATION_H_
