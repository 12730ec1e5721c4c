#include "server/recorded_batch.h"

#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"

namespace esper::server {

absl::StatusOr<std::vector<ppo::Trajectory>> DecodeRecorded(
    const v1::RecordedBatch& batch, const RecordingStore& recordings,
    const policy::PolicySpec& spec, const codec::MaskCodec& masks,
    ppo::TrajectoryUse use) {
  constexpr char kField[] = "recorded.episode_ids";
  if (batch.episode_ids_size() == 0) {
    return Refuse("MALFORMED_REQUEST", kField, "The batch names no recording.",
                  "Name at least one.");
  }
  absl::flat_hash_set<std::string> seen;
  std::vector<ppo::Trajectory> trajectories;
  for (int row = 0; row < batch.episode_ids_size(); ++row) {
    const std::string& id = batch.episode_ids(row);
    if (!seen.insert(id).second) {
      return RefuseRow("MALFORMED_REQUEST", kField, row,
                       "the recording is named twice.",
                       "Name each recording once.");
    }
    const auto recording = recordings.Read(id, row);
    if (!recording.ok()) return recording.status();
    const v1::RecordingInfo& info = recording->info();
    if (info.state() != v1::RECORDING_STATE_COMPLETE) {
      return RefuseRow("INCOMPLETE_RECORDING", kField, row,
                       "the episode had no proper end: its last outcome is "
                       "missing, and what its future is worth.",
                       "Train on complete recordings, and discard this one.");
    }
    auto trajectory =
        codec::DecodeTrajectory(recording->trajectory(), spec, masks, row, use);
    if (!trajectory.ok()) return trajectory.status();
    trajectories.push_back(*std::move(trajectory));
  }
  return trajectories;
}

}  // namespace esper::server
