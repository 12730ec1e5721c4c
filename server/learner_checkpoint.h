#ifndef ESPER_SERVER_LEARNER_CHECKPOINT_H_
#define ESPER_SERVER_LEARNER_CHECKPOINT_H_

#include "absl/status/statusor.h"
#include "core/ppo/learner.h"
#include "server/checkpoint_store.h"

// The learner as files of a checkpoint, and back:
//   learner.safetensors  everything that training goes on from;
//   policy.safetensors   the published weights alone, under the names of the
//                        network's state dict, for other programs.
namespace esper::server {

// `name` may be empty: "v<policy version>-s<optimiser steps>".
absl::StatusOr<Checkpoint> ToCheckpoint(const ppo::Learner& learner,
                                        const std::string& name);

// DATA_LOSS (CORRUPT_CHECKPOINT) if a file is missing or malformed.
absl::StatusOr<ppo::LearnerState> FromCheckpoint(const Checkpoint& checkpoint);

}  // namespace esper::server
#endif  // ESPER_SERVER_LEARNER_CHECKPOINT_H_
