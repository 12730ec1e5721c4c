#ifndef ESPER_SERVER_LEARNER_CALLS_H_
#define ESPER_SERVER_LEARNER_CALLS_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/ppo/learner.h"
#include "core/ppo/trajectory.h"
#include "esper/v1/policy_training.pb.h"
#include "proto/codec/mask_codec.h"
#include "server/learner_thread.h"
#include "server/recorded_batch.h"
#include "server/recording_store.h"
#include "server/server_counters.h"

namespace esper::server {

// What writing calls do on the learner's thread: the single ones, and the same
// steps inside of a whole update.
//
// Thread safety: its methods run on the learner's thread alone.
class LearnerCalls {
 public:
  // All must outlive this.
  LearnerCalls(LearnerThread& thread, const RecordingStore& recordings,
               ServerCounters& counters);

  // The episodes that a request trains on, uploaded or recorded. Errors: those
  // of DecodeEpisodes.
  template <typename Request>
  absl::StatusOr<std::vector<ppo::Trajectory>> ReadTrajectories(
      const Request& request, const ppo::PassOptions& loss) const {
    return DecodeEpisodes(request, recordings_, thread_.policies().spec(),
                          masks_, UseOf(loss));
  }

  // One pass; fills all of `response`.
  absl::Status ForwardBackward(ppo::Learner& learner,
                               absl::Span<const ppo::Trajectory> trajectories,
                               const ppo::PassOptions& options,
                               v1::ForwardBackwardResponse* response);

  // One step; fills `response` but for what a publish changes.
  absl::Status OptimStep(ppo::Learner& learner,
                         const ppo::OptimStepOptions& options,
                         v1::OptimStepResponse* response);

  // Publishes the steps that no version has; false if there are none.
  absl::StatusOr<bool> PublishSteps(ppo::Learner& learner);

  // The published version.
  void FillHeader(v1::ResponseHeader* header) const;

 private:
  // Imitation asks less of an episode.
  static ppo::TrajectoryUse UseOf(const ppo::PassOptions& loss);

  LearnerThread& thread_;
  const RecordingStore& recordings_;
  ServerCounters& counters_;
  const codec::MaskCodec masks_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_LEARNER_CALLS_H_
