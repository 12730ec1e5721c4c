#include "proto/codec/trajectory_codec.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "core/policy/policy_spec.h"
#include "proto/codec/tensor_codec.h"

namespace esper::codec {
namespace {

absl::Status Malformed(const std::string& field, int64_t row,
                       const std::string& message, const std::string& hint) {
  ErrorDetail detail;
  detail.reason = "MALFORMED_REQUEST";
  detail.field = field;
  detail.row = row;
  detail.hint = hint;
  return MakeStatus(absl::StatusCode::kInvalidArgument, detail,
                    absl::StrCat("Trajectory ", row, ": ", message));
}

// Decodes the fields of one trajectory into one struct, field by field; stops
// at the first error, which it keeps.
class FieldReader {
 public:
  explicit FieldReader(int64_t row) : row_(row) {}

  void Read(const v1::Tensor& message, const std::string& field,
            std::vector<int64_t> shape, std::vector<v1::DataType> dtypes,
            at::Tensor* tensor) {
    if (!status_.ok()) return;
    auto decoded = DecodeTensor(
        message, {field, std::move(shape), std::move(dtypes), row_});
    if (decoded.ok()) {
      *tensor = *std::move(decoded);
    } else {
      status_ = decoded.status();
    }
  }

  // Leaves `tensor` undefined if the field is absent.
  void ReadOptional(const v1::Tensor& message, const std::string& field,
                    std::vector<int64_t> shape,
                    std::vector<v1::DataType> dtypes, at::Tensor* tensor) {
    if (IsAbsent(message)) return;
    Read(message, field, std::move(shape), std::move(dtypes), tensor);
  }

  const absl::Status& status() const { return status_; }

 private:
  const int64_t row_;
  absl::Status status_;
};

absl::Status CheckOutcome(const v1::Trajectory& message, int64_t row) {
  if (message.end_kind() != v1::END_KIND_TERMINATED &&
      message.end_kind() != v1::END_KIND_TRUNCATED) {
    return Malformed("end_kind", row, "it is neither terminated nor truncated.",
                     "Leave aborted and unfinished episodes out.");
  }
  if (message.behaviour().kind() != v1::NUMBER_KIND_BEHAVIOUR) {
    return Malformed("behaviour", row,
                     "its numbers are not of the kind BEHAVIOUR.",
                     "Send what GetAction returned, never what "
                     "EvaluateActions returned.");
  }
  return absl::OkStatus();
}

absl::Status CheckHeader(const v1::Trajectory& message, int64_t row) {
  if (message.observations().shape_size() == 2 &&
      message.observations().shape(0) == 0) {
    return Malformed("observations", row, "it has no steps.",
                     "Leave empty episodes out.");
  }
  if (message.has_initial_hidden() != message.has_initial_cell()) {
    return Malformed("initial_hidden", row,
                     "one half of the initial state is missing.",
                     "Send hidden and cell, or neither.");
  }
  return absl::OkStatus();
}

// Masks with the row in force for each step's driver action.
absl::StatusOr<at::Tensor> DecodeMasks(const v1::Trajectory& message,
                                       const policy::PolicySpec& spec,
                                       const MaskCodec& codec,
                                       const at::Tensor& actions, int64_t row) {
  const int64_t steps = actions.size(0);
  auto masks = codec.Decode(message.action_masks(), steps, "action_masks", row);
  if (!masks.ok()) return masks.status();
  const int64_t conditional = spec.ConditionalHead();
  if (conditional < 0) return masks->heads;
  const int64_t driver = spec.DriverOf(conditional);
  const at::Tensor choices = actions.select(1, driver).contiguous();
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t choice = choices.const_data_ptr<int64_t>()[step];
    if (choice >= 0 && choice < spec.heads[driver].size) continue;
    return ToStatus(InvalidActionError(
        spec.heads[driver].name, row, step, choice,
        absl::StrCat("is outside [0, ", spec.heads[driver].size - 1, "]")));
  }
  return codec.SelectConditional(*masks, choices);
}

// What acting and the environment answered.
void ReadOutcome(const v1::Trajectory& message, const policy::PolicySpec& spec,
                 int64_t steps, FieldReader* reader, ppo::Trajectory* result) {
  const std::vector<v1::DataType> f32 = {v1::DATA_TYPE_FLOAT32};
  const int64_t slots = spec.contribution_outputs;
  const v1::BehaviourNumbers& behaviour = message.behaviour();
  reader->Read(behaviour.log_probs(), "behaviour.log_probs",
               {steps, spec.num_heads()}, f32, &result->behaviour_log_probs);
  reader->Read(behaviour.values(), "behaviour.values", {steps}, f32,
               &result->values);
  reader->Read(message.policy_versions(), "policy_versions", {steps},
               {v1::DATA_TYPE_INT64}, &result->policy_versions);
  reader->Read(message.rewards(), "rewards", {steps}, f32, &result->rewards);
  reader->ReadOptional(message.contribution_targets(), "contribution_targets",
                       {steps, slots}, f32, &result->contribution_targets);
  reader->ReadOptional(message.contribution_mask(), "contribution_mask",
                       {steps, slots}, {v1::DATA_TYPE_BOOL},
                       &result->contribution_mask);
  if (result->contribution_mask.defined()) {
    result->contribution_fresh = result->contribution_mask.any(1);
  }
  const bool truncated = message.end_kind() == v1::END_KIND_TRUNCATED;
  result->end =
      truncated ? ppo::EpisodeEnd::kTruncated : ppo::EpisodeEnd::kTerminated;
  if (message.has_bootstrap_value()) {
    result->bootstrap_value = message.bootstrap_value();
  }
}

}  // namespace

absl::StatusOr<ppo::Trajectory> DecodeTrajectory(const v1::Trajectory& message,
                                                 const policy::PolicySpec& spec,
                                                 const MaskCodec& codec,
                                                 int64_t row,
                                                 ppo::TrajectoryUse use) {
  if (use == ppo::TrajectoryUse::kReinforcement) {
    const absl::Status outcome = CheckOutcome(message, row);
    if (!outcome.ok()) return outcome;
  }
  const absl::Status header = CheckHeader(message, row);
  if (!header.ok()) return header;
  const std::vector<v1::DataType> f32 = {v1::DATA_TYPE_FLOAT32};
  const std::vector<v1::DataType> index = {v1::DATA_TYPE_UINT8,
                                           v1::DATA_TYPE_INT64};
  ppo::Trajectory result;
  result.episode = message.episode_key();
  result.spec_digest = message.spec_digest();

  FieldReader reader(row);
  reader.Read(
      message.observations(), "observations", {-1, spec.observation_width()},
      {v1::DATA_TYPE_FLOAT32, v1::DATA_TYPE_BFLOAT16}, &result.observations);
  if (!reader.status().ok()) return reader.status();
  const int64_t steps = result.length();
  const int64_t heads = spec.num_heads();
  if (spec.categorical_count() > 0) {
    reader.Read(message.categorical(), "categorical",
                {steps, spec.categorical_count()},
                {v1::DATA_TYPE_INT8, v1::DATA_TYPE_INT64}, &result.categorical);
  } else {
    reader.ReadOptional(message.categorical(), "categorical", {steps, 0},
                        {v1::DATA_TYPE_INT8}, &result.categorical);
  }
  reader.Read(message.actions(), "actions", {steps, heads}, index,
              &result.actions);
  if (spec.continuous_width() > 0) {
    reader.Read(message.continuous_actions(), "continuous_actions",
                {steps, spec.continuous_width()}, f32,
                &result.continuous_actions);
  } else if (!IsAbsent(message.continuous_actions())) {
    ErrorDetail detail;
    detail.reason = "BAD_SHAPE";
    detail.field = detail.tensor = "continuous_actions";
    detail.row = row;
    detail.hint = "Leave the field unset.";
    return MakeStatus(
        absl::StatusCode::kInvalidArgument, detail,
        absl::StrCat("The policy has no Gaussian head, but trajectory ", row,
                     " has continuous_actions ",
                     Describe(message.continuous_actions()), "."));
  }
  reader.ReadOptional(message.effective_choices(), "effective_choices", {steps},
                      index, &result.effective_choices);
  reader.ReadOptional(message.forced(), "forced", {steps}, {v1::DATA_TYPE_BOOL},
                      &result.forced);
  const std::vector<int64_t> state = {spec.lstm_layers, spec.hidden_dim};
  reader.ReadOptional(message.initial_hidden(), "initial_hidden", state, f32,
                      &result.initial_h);
  reader.ReadOptional(message.initial_cell(), "initial_cell", state, f32,
                      &result.initial_c);
  if (use == ppo::TrajectoryUse::kReinforcement) {
    ReadOutcome(message, spec, steps, &reader, &result);
  }
  if (!reader.status().ok()) return reader.status();

  result.actions = result.actions.to(at::kLong);
  for (at::Tensor* tensor : {&result.categorical, &result.effective_choices}) {
    if (tensor->defined()) *tensor = tensor->to(at::kLong);
  }
  if (spec.categorical_count() == 0) result.categorical = at::Tensor();
  auto masks = DecodeMasks(message, spec, codec, result.actions, row);
  if (!masks.ok()) return masks.status();
  result.action_masks = *std::move(masks);
  return result;
}

absl::StatusOr<std::vector<ppo::Trajectory>> DecodeTrajectories(
    const v1::TrajectoryBatch& message, const policy::PolicySpec& spec,
    const MaskCodec& masks, ppo::TrajectoryUse use) {
  if (message.trajectories_size() == 0) {
    ErrorDetail detail;
    detail.reason = "MALFORMED_REQUEST";
    detail.field = "trajectories";
    detail.hint = "Send at least one.";
    return MakeStatus(absl::StatusCode::kInvalidArgument, detail,
                      "The batch has no trajectory.");
  }
  std::vector<ppo::Trajectory> result;
  for (int row = 0; row < message.trajectories_size(); ++row) {
    auto trajectory =
        DecodeTrajectory(message.trajectories(row), spec, masks, row, use);
    if (!trajectory.ok()) return trajectory.status();
    result.push_back(*std::move(trajectory));
  }
  return result;
}

}  // namespace esper::codec
