#ifndef ESPER_PROTO_CODEC_TRAJECTORY_CODEC_H_
#define ESPER_PROTO_CODEC_TRAJECTORY_CODEC_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "core/ppo/trajectory.h"
#include "esper/v1/trajectory.pb.h"
#include "proto/codec/mask_codec.h"

namespace esper::codec {

// One uploaded episode, as the learner takes it. `row` is its position in the
// batch and goes into errors. Errors, all naming field and row:
//   BAD_SHAPE          dtype, shape or length of a tensor; fields that differ
//                      in their number of steps;
//   MALFORMED_REQUEST  no step, end kind that is neither terminated nor
//                      truncated, behaviour numbers that are not of kind
//                      NUMBER_KIND_BEHAVIOUR, a padding bit in a mask, one
//                      initial state without the other;
//   INVALID_ACTION     an action of the driver head outside its range.
// Values are left to ppo::TrajectoryRules, which is the one place that
// checks them. To be imitated, an episode's fields that imitation does not read
// are not decoded either, whatever they hold.
absl::StatusOr<ppo::Trajectory> DecodeTrajectory(
    const v1::Trajectory& message, const policy::PolicySpec& spec,
    const MaskCodec& masks, int64_t row,
    ppo::TrajectoryUse use = ppo::TrajectoryUse::kReinforcement);

// The whole batch. MALFORMED_REQUEST if it is empty.
absl::StatusOr<std::vector<ppo::Trajectory>> DecodeTrajectories(
    const v1::TrajectoryBatch& message, const policy::PolicySpec& spec,
    const MaskCodec& masks,
    ppo::TrajectoryUse use = ppo::TrajectoryUse::kReinforcement);

}  // namespace esper::codec
#endif  // ESPER_PROTO_CODEC_TRAJECTORY_CODEC_H_
