#ifndef ESPER_SERVER_RECORDED_BATCH_H_
#define ESPER_SERVER_RECORDED_BATCH_H_

#include <vector>

#include "absl/status/statusor.h"
#include "core/policy/policy_spec.h"
#include "core/ppo/trajectory.h"
#include "esper/v1/trajectory.pb.h"
#include "proto/codec/mask_codec.h"
#include "proto/codec/trajectory_codec.h"
#include "server/recording_store.h"
#include "server/refusal.h"

namespace esper::server {

// Recorded episodes as the learner takes them: bit for bit what their upload
// would decode to. May read files. Errors, naming the row: MALFORMED_REQUEST
// (no id, or one twice), UNKNOWN_EPISODE, INCOMPLETE_RECORDING,
// CORRUPT_RECORDING, and those of DecodeTrajectory.
absl::StatusOr<std::vector<ppo::Trajectory>> DecodeRecorded(
    const v1::RecordedBatch& batch, const RecordingStore& recordings,
    const policy::PolicySpec& spec, const codec::MaskCodec& masks,
    ppo::TrajectoryUse use = ppo::TrajectoryUse::kReinforcement);

// The trajectories of a request that has either `batch` or `recorded`:
// MALFORMED_REQUEST if it has both or neither.
template <typename Request>
absl::StatusOr<std::vector<ppo::Trajectory>> DecodeEpisodes(
    const Request& request, const RecordingStore& recordings,
    const policy::PolicySpec& spec, const codec::MaskCodec& masks,
    ppo::TrajectoryUse use = ppo::TrajectoryUse::kReinforcement) {
  if (request.has_batch() == request.has_recorded()) {
    return Refuse("MALFORMED_REQUEST", "batch",
                  request.has_batch()
                      ? "The request has both uploaded and recorded episodes."
                      : "The request has no episodes.",
                  "Set either batch or recorded.");
  }
  if (request.has_recorded()) {
    return DecodeRecorded(request.recorded(), recordings, spec, masks, use);
  }
  return codec::DecodeTrajectories(request.batch(), spec, masks, use);
}

}  // namespace esper::server
#endif  // ESPER_SERVER_RECORDED_BATCH_H_
