#ifndef ESPER_CORE_HOST_MODEL_CHECKPOINT_H_
#define ESPER_CORE_HOST_MODEL_CHECKPOINT_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/host/growable_model.h"
#include "core/slot/blueprint.h"
#include "core/tensor/safetensors.h"

// A whole growing network in one safetensors file: host, slots, seeds. Tensors
// have their names in the module tree, "host.*" and "seed_slots.<id>.*"; tied
// tensors are there once, under their first name. Metadata: "esper.model", a
// JSON object with version 1, topology and slot ids in action order; and
// "esper.slot.<id>", a slot record (core/slot/slot_checkpoint_codec.h).
// Optimisers, training data and the host's place in its sequence of dropout
// masks are not part of it.
//
// For the thread that owns the model's parameters.
namespace esper::host {

// Copies: later training does not show. INVALID_ARGUMENT if a record holds a
// number that is not finite.
absl::StatusOr<tensor::Safetensors> SaveModel(const GrowableModel& model);

// Makes `model` what was saved: host weights and running statistics, and every
// slot, empty ones included. On an error nothing has changed.
// FAILED_PRECONDITION (SPEC_MISMATCH) if the model has another topology, other
// slots, or blueprints that `registry` lacks; DATA_LOSS (CORRUPT_CHECKPOINT)
// naming key or tensor for what is missing, left over, of another shape or
// dtype, or contradictory.
absl::Status LoadModel(GrowableModel& model, const tensor::Safetensors& saved,
                       const slot::BlueprintRegistry& registry);

// The same with a file. Writing replaces it whole or leaves it; reading adds
// the errors of core/tensor/safetensors.h.
absl::Status WriteModel(const GrowableModel& model, const std::string& path);
absl::Status ReadModel(GrowableModel& model, const std::string& path,
                       const slot::BlueprintRegistry& registry);

}  // namespace esper::host
#endif  // ESPER_CORE_HOST_MODEL_CHECKPOINT_H_
