#ifndef ESPER_SERVER_LEARNER_CHECKPOINT_H_
#define ESPER_SERVER_LEARNER_CHECKPOINT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "core/policy/policy_spec.h"
#include "core/ppo/learner.h"
#include "server/checkpoint_store.h"

// The learner as files of a checkpoint, and back:
//   learner.safetensors  everything that training goes on from;
//   policy.safetensors   the published weights alone, under the names of the
//                        network's state dict, for other programs.
namespace esper::server {

// `name` may be empty: "v<policy version>-s<optimiser steps>".
absl::StatusOr<Checkpoint> ToCheckpoint(const policy::PolicySpec& spec,
                                        const ppo::LearnerState& state,
                                        const std::string& name);

// DATA_LOSS (CORRUPT_CHECKPOINT) if a file is missing or malformed.
absl::StatusOr<ppo::LearnerState> FromCheckpoint(const Checkpoint& checkpoint);

// Whether a checkpoint can be restored, and its policy file says the same.
// Errors: those of `FromCheckpoint` and of `Learner::CreateFromState`.
absl::Status CheckCheckpoint(const policy::PolicySpec& spec,
                             const ppo::LearnerConfig& config,
                             const Checkpoint& checkpoint);

// The published weights of a state as the safetensors file that ExportPolicy
// gives (policy_admin.proto).
absl::StatusOr<std::string> ToPolicyFile(const policy::PolicySpec& spec,
                                         const ppo::LearnerState& state);

// A learner's state from such a file: fresh but for the weights and the
// statistics that the metadata has, published as `version`. Files of other
// programs may lack all metadata. DATA_LOSS (CORRUPT_CHECKPOINT) for a file
// that is not sound; FAILED_PRECONDITION (SPEC_MISMATCH) and INVALID_ARGUMENT
// (BAD_SHAPE, NONFINITE_INPUT) if its weights are not those of `spec`.
absl::StatusOr<ppo::LearnerState> FromPolicyFile(
    const policy::PolicySpec& spec, const ppo::LearnerConfig& config,
    const std::string& bytes, int64_t version);

// SHA-256, hex, over name, shape and bytes of every tensor.
std::string WeightsDigest(const ppo::NamedTensors& weights);

}  // namespace esper::server
#endif  // ESPER_SERVER_LEARNER_CHECKPOINT_H_
