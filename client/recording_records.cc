#include "client/recording_records.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace esper::client {
namespace {

// Row `step` of a tensor of `steps` rows, as a tensor of one row; what is
// absent stays so.
absl::Status CopyRow(const v1::Tensor& tensor, const char* name, int64_t step,
                     int64_t steps, v1::Tensor* row) {
  if (tensor.dtype() == v1::DATA_TYPE_UNSPECIFIED) return absl::OkStatus();
  if (tensor.shape_size() == 0 || tensor.shape(0) != steps ||
      static_cast<int64_t>(tensor.data().size()) % steps != 0) {
    return absl::DataLossError(absl::StrCat(
        "The recording's ", name, " are not of its ", steps, " steps."));
  }
  const size_t bytes = tensor.data().size() / steps;
  row->set_dtype(tensor.dtype());
  *row->mutable_shape() = tensor.shape();
  row->set_shape(0, 1);
  row->set_data(tensor.data().substr(step * bytes, bytes));
  return absl::OkStatus();
}

}  // namespace

v1::ResponseHeader HeaderOf(const v1::Recording& recording) {
  v1::ResponseHeader header;
  header.set_policy_version(recording.info().first_version());
  header.set_spec_digest(recording.trajectory().spec_digest());
  header.set_precision(recording.info().precision());
  return header;
}

log::ActionLogRecord RecordingRecords::Opening() const {
  const v1::RecordingInfo& info = recording_.info();
  log::ActionLogRecord record;
  v1::EpisodeStart* start =
      record.mutable_opened()->mutable_request()->add_episodes();
  start->set_environment_key(info.environment_key());
  start->set_incarnation(info.incarnation());
  start->set_seed(info.seed());
  start->set_deterministic(info.deterministic());
  record.mutable_opened()->mutable_response()->add_episode_ids(
      info.episode_id());
  return record;
}

absl::StatusOr<log::ActionLogRecord> RecordingRecords::Step(
    int64_t step) const {
  const v1::Trajectory& from = recording_.trajectory();
  const int64_t steps = recording_.info().steps();
  log::ActionLogRecord record;
  v1::GetActionRequest* request = record.mutable_steps()->mutable_request();
  v1::GetActionResponse* response = record.mutable_steps()->mutable_response();
  v1::StepRow* row = request->add_rows();
  row->set_episode_id(recording_.info().episode_id());
  row->set_incarnation(recording_.info().incarnation());
  row->set_step(step);
  *response->mutable_header() = HeaderOf(recording_);
  v1::BehaviourNumbers* behaviour = response->mutable_behaviour();
  behaviour->set_kind(v1::NUMBER_KIND_BEHAVIOUR);
  struct Part {
    const char* name;
    const v1::Tensor& tensor;
    v1::Tensor* row;
  };
  for (const Part& part : {
           Part{"observations", from.observations(),
                request->mutable_observations()},
           Part{"actions", from.actions(), response->mutable_actions()},
           Part{"log_probs", from.behaviour().log_probs(),
                behaviour->mutable_log_probs()},
           Part{"values", from.behaviour().values(),
                behaviour->mutable_values()},
           Part{"policy_versions", from.policy_versions(),
                response->mutable_policy_versions()},
       }) {
    absl::Status copied =
        CopyRow(part.tensor, part.name, step, steps, part.row);
    if (!copied.ok()) return copied;
  }
  absl::Status copied;
  if (from.has_categorical()) {
    copied.Update(CopyRow(from.categorical(), "categorical", step, steps,
                          request->mutable_categorical()));
  }
  if (from.has_action_masks()) {
    copied.Update(CopyRow(from.action_masks(), "action_masks", step, steps,
                          request->mutable_action_masks()));
  }
  if (from.has_continuous_actions()) {
    copied.Update(CopyRow(from.continuous_actions(), "continuous_actions", step,
                          steps, response->mutable_continuous_actions()));
  }
  if (!copied.ok()) return copied;
  return record;
}

absl::StatusOr<std::optional<log::ActionLogRecord>> RecordingRecords::Next() {
  const int64_t step = next_++;
  if (step < 0) return std::make_optional(Opening());
  if (step >= recording_.info().steps()) {
    return std::optional<log::ActionLogRecord>();
  }
  auto record = Step(step);
  if (!record.ok()) return record.status();
  return std::make_optional(*std::move(record));
}

}  // namespace esper::client
