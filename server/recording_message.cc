#include "server/recording_message.h"

#include "absl/strings/ascii.h"
#include "absl/strings/strip.h"

namespace esper::server {
namespace {

using Why = RecordingEnd::Why;

v1::EndKind EndKindOf(const RecordingEnd& end) {
  switch (end.why) {
    case Why::kTerminated:
      return v1::END_KIND_TERMINATED;
    case Why::kTruncated:
      return v1::END_KIND_TRUNCATED;
    default:
      return v1::END_KIND_UNSPECIFIED;
  }
}

v1::IncompleteCause CauseOf(const RecordingEnd& end) {
  switch (end.why) {
    case Why::kTerminated:
    case Why::kTruncated:
      return v1::INCOMPLETE_CAUSE_UNSPECIFIED;
    case Why::kAborted:
      return v1::INCOMPLETE_CAUSE_ABORTED;
    case Why::kExpired:
      return v1::INCOMPLETE_CAUSE_EXPIRED;
    case Why::kSuperseded:
      return v1::INCOMPLETE_CAUSE_SUPERSEDED;
    case Why::kDrained:
      return v1::INCOMPLETE_CAUSE_DRAINED;
  }
  return v1::INCOMPLETE_CAUSE_UNSPECIFIED;
}

}  // namespace

v1::RecordingInfo InfoOf(const Recording& recording, const RecordingEnd& end,
                         v1::InferencePrecision precision) {
  v1::RecordingInfo info;
  info.set_episode_id(recording.id());
  info.set_environment_key(recording.start().environment_key);
  info.set_incarnation(recording.start().incarnation);
  info.set_seed(recording.start().seed);
  info.set_deterministic(recording.start().deterministic);
  info.set_steps(recording.steps());
  info.set_outcomes(recording.outcomes());
  info.set_state(end.complete() ? v1::RECORDING_STATE_COMPLETE
                                : v1::RECORDING_STATE_INCOMPLETE);
  info.set_end_kind(EndKindOf(end));
  info.set_cause(CauseOf(end));
  info.set_episode_return(recording.episode_return());
  if (recording.steps() > 0) {
    info.set_first_version(recording.version_of(0));
    info.set_last_version(recording.version_of(recording.steps() - 1));
  }
  info.set_precision(precision);
  info.set_size_bytes(recording.bytes());
  return info;
}

v1::Trajectory TrajectoryOf(const Recording& recording, const RecordingEnd& end,
                            const std::string& spec_digest) {
  const auto fill = [&](const RecordingLayout::Column& column,
                        v1::Tensor* tensor) {
    tensor->set_dtype(column.dtype);
    tensor->add_shape(recording.steps());
    if (column.rows) tensor->add_shape(column.count);
    tensor->set_data(recording.Read(column));
  };
  const RecordingLayout& parts = recording.layout();
  v1::Trajectory message;
  message.set_spec_digest(spec_digest);
  message.set_episode_key(recording.start().environment_key);
  fill(parts.observations, message.mutable_observations());
  if (parts.categorical.count > 0) {
    fill(parts.categorical, message.mutable_categorical());
  }
  if (parts.masks.count > 0) fill(parts.masks, message.mutable_action_masks());
  fill(parts.actions, message.mutable_actions());
  if (parts.continuous.count > 0) {
    fill(parts.continuous, message.mutable_continuous_actions());
  }
  message.mutable_behaviour()->set_kind(v1::NUMBER_KIND_BEHAVIOUR);
  fill(parts.log_probs, message.mutable_behaviour()->mutable_log_probs());
  fill(parts.value, message.mutable_behaviour()->mutable_values());
  fill(parts.version, message.mutable_policy_versions());
  fill(parts.reward, message.mutable_rewards());
  if (parts.effective_choice.count > 0) {
    fill(parts.effective_choice, message.mutable_effective_choices());
  }
  fill(parts.forced, message.mutable_forced());
  if (recording.measured()) {
    fill(parts.targets, message.mutable_contribution_targets());
    fill(parts.targets_measured, message.mutable_contribution_mask());
  }
  message.set_end_kind(EndKindOf(end));
  if (end.why == Why::kTruncated) message.set_bootstrap_value(end.bootstrap);
  return message;
}

std::string CauseName(v1::IncompleteCause cause) {
  return absl::AsciiStrToLower(
      absl::StripPrefix(v1::IncompleteCause_Name(cause), "INCOMPLETE_CAUSE_"));
}

}  // namespace esper::server
