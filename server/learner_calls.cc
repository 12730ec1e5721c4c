#include "server/learner_calls.h"

#include <variant>

#include "server/training_messages.h"
#include "spdlog/spdlog.h"

namespace esper::server {

LearnerCalls::LearnerCalls(LearnerThread& thread,
                           const RecordingStore& recordings,
                           ServerCounters& counters)
    : thread_(thread),
      recordings_(recordings),
      counters_(counters),
      masks_(thread.policies().spec()) {}

ppo::TrajectoryUse LearnerCalls::UseOf(const ppo::PassOptions& loss) {
  return std::holds_alternative<ppo::BehaviourCloningOptions>(loss)
             ? ppo::TrajectoryUse::kImitation
             : ppo::TrajectoryUse::kReinforcement;
}

absl::Status LearnerCalls::ForwardBackward(
    ppo::Learner& learner, absl::Span<const ppo::Trajectory> trajectories,
    const ppo::PassOptions& options, v1::ForwardBackwardResponse* response) {
  auto report = learner.ForwardBackward(trajectories, options);
  if (!report.ok()) return report.status();
  thread_.NotePass(*report);
  if (report->ratio_alarm) {
    spdlog::warn(
        "ratio check {:.3g} is above the alarm limit: acting and training "
        "disagree",
        *report->ratio_check_max);
  }
  EncodeReport(*report, options, response);
  FillHeader(response->mutable_header());
  return absl::OkStatus();
}

absl::Status LearnerCalls::OptimStep(ppo::Learner& learner,
                                     const ppo::OptimStepOptions& options,
                                     v1::OptimStepResponse* response) {
  auto report = learner.OptimStep(options);
  if (!report.ok()) return report.status();
  EncodeStep(*report, response);
  if (!report->stepped) {
    spdlog::warn("optimiser step skipped: {} is not finite",
                 report->nonfinite_tensor);
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> LearnerCalls::PublishSteps(ppo::Learner& learner) {
  if (learner.unpublished_steps() == 0) return false;
  absl::Status published = thread_.Publish(learner);
  if (!published.ok()) return published;
  ++counters_.publishes;
  spdlog::info("published policy version {}", learner.policy_version());
  return true;
}

void LearnerCalls::FillHeader(v1::ResponseHeader* header) const {
  thread_.policies().FillHeader(header);
}

}  // namespace esper::server
