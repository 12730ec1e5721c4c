#include "server/inference_request.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ATen/ops/empty.h"
#include "absl/strings/str_cat.h"
#include "proto/codec/tensor_codec.h"
#include "server/refusal.h"

namespace esper::server {
namespace {

absl::Status InferenceOnly() {
  return RefuseRow(
      "INFERENCE_ONLY", "requires_grad", -1,
      "GetAction is inference only: nothing it returns has a "
      "gradient.",
      "Open a gradient stream with PolicyTraining.EvaluateActions, "
      "or let the server train with PolicyTraining.ForwardBackward.");
}

absl::Status OverBudget(const std::string& budget, int64_t limit,
                        int64_t actual) {
  return RefuseRow("BUDGET_EXCEEDED", budget, -1,
                   absl::StrCat("The budget ", budget, " is ", limit,
                                ", the call has ", actual, "."),
                   "Split the call.");
}

// Status of a row of final observations that is read.
absl::Status CheckFiniteRows(const at::Tensor& tensor, const std::string& field,
                             const std::vector<bool>& read) {
  for (size_t row = 0; row < read.size(); ++row) {
    if (!read[row]) continue;
    // A row is one axis shorter: report it, not the position inside it.
    if (!codec::CheckFinite(tensor.select(0, row), field).ok()) {
      return ToStatus(NonFiniteError::Input(field, row));
    }
  }
  return absl::OkStatus();
}

}  // namespace

InferenceRequestDecoder::InferenceRequestDecoder(
    const policy::PolicySpec& spec, const InferenceOptions& options)
    : options_(options),
      masks_(spec),
      states_(spec, options.state_key),
      observation_width_(spec.observation_width()),
      categorical_count_(spec.categorical_count()),
      cardinality_(spec.categorical ? spec.categorical->cardinality : 0),
      driver_choices_(DriverHead(spec) < 0 ? INT32_MAX
                                           : spec.heads[DriverHead(spec)].size),
      contributions_(spec.contribution_outputs) {}

absl::Status InferenceRequestDecoder::CheckSize(
    const google::protobuf::MessageLite& request, int rows,
    const std::string& field) const {
  if (rows == 0) {
    return RefuseRow("MALFORMED_REQUEST", field, -1,
                     absl::StrCat("The call has no ", field, "."),
                     "Send at least one.");
  }
  if (rows > options_.max_rows_per_call) {
    return OverBudget("max_rows_per_call", options_.max_rows_per_call, rows);
  }
  const int64_t bytes = static_cast<int64_t>(request.ByteSizeLong());
  if (bytes > options_.max_message_bytes) {
    return OverBudget("max_message_bytes", options_.max_message_bytes, bytes);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<EpisodeStart>> InferenceRequestDecoder::DecodeOpen(
    const v1::OpenEpisodesRequest& request) const {
  const absl::Status size =
      CheckSize(request, request.episodes_size(), "episodes");
  if (!size.ok()) return size;
  std::vector<EpisodeStart> starts;
  for (const v1::EpisodeStart& message : request.episodes()) {
    starts.push_back({message.environment_key(), message.incarnation(),
                      message.seed(), message.deterministic(), /*owner=*/"",
                      message.record()});
  }
  return starts;
}

absl::StatusOr<Outcome> InferenceRequestDecoder::DecodeOutcome(
    const v1::StepOutcome& message, const std::string& field,
    int64_t row) const {
  if (!std::isfinite(message.reward())) {
    return ToStatus(NonFiniteError::Input(absl::StrCat(field, ".reward"), row));
  }
  if (message.effective_choice() < 0 ||
      message.effective_choice() >= driver_choices_) {
    return RefuseRow("INVALID_ACTION", absl::StrCat(field, ".effective_choice"),
                     row,
                     absl::StrCat("there is no driver action ",
                                  message.effective_choice(), "."),
                     "Report the chosen driver action, or the idle one if the "
                     "environment refused it.");
  }
  const std::string& targets = message.contribution_targets();
  if (!targets.empty() && targets.size() != contributions_ * sizeof(float)) {
    return RefuseRow(
        "BAD_SHAPE", absl::StrCat(field, ".contribution_targets"), row,
        absl::StrCat("contribution_targets must be ", contributions_,
                     " float32, got ", targets.size(), " bytes."),
        "Send one number per slot, or none.");
  }
  Outcome outcome;
  outcome.reward = message.reward();
  outcome.effective_choice = message.effective_choice();
  outcome.forced = message.forced();
  outcome.forfeits_earlier_rewards = message.forfeits_earlier_rewards();
  outcome.targets.resize(targets.size() / sizeof(float));
  if (!targets.empty()) {
    std::memcpy(outcome.targets.data(), targets.data(), targets.size());
  }
  for (const float target : outcome.targets) {
    if (!std::isfinite(target)) {
      return ToStatus(NonFiniteError::Input(
          absl::StrCat(field, ".contribution_targets"), row));
    }
  }
  const uint64_t measurable = targets.empty() ? 0
                              : contributions_ >= 64
                                  ? ~uint64_t{0}
                                  : (uint64_t{1} << contributions_) - 1;
  if ((message.contribution_mask() & ~measurable) != 0) {
    return RefuseRow("MALFORMED_REQUEST",
                     absl::StrCat(field, ".contribution_mask"), row,
                     absl::StrCat("contribution_mask marks a slot "
                                  "that has no target."),
                     "Set only bits of slots whose target is sent.");
  }
  outcome.targets_measured = message.contribution_mask();
  return outcome;
}

absl::StatusOr<std::shared_ptr<const HeldState>>
InferenceRequestDecoder::DecodeHeld(const v1::StepRow& message,
                                    int64_t row) const {
  const bool begins = message.has_client_episode();
  const bool goes_on = !message.recurrent_state().empty();
  if (!begins && !goes_on) return nullptr;
  if ((begins && goes_on) || !message.episode_id().empty()) {
    return RefuseRow("MALFORMED_REQUEST", "rows", row,
                     "the row says more than once whose state it needs.",
                     "Set one of episode_id, client_episode and "
                     "recurrent_state.");
  }
  if (message.client_episode().record()) {
    return RefuseRow("MALFORMED_REQUEST", "client_episode.record", row,
                     "an episode whose client holds the state cannot be "
                     "recorded.",
                     "Open the episode with OpenEpisodes, or record it on the "
                     "client's side and upload it.");
  }
  HeldState state;
  if (begins) {
    state.seed = message.client_episode().seed();
    state.deterministic = message.client_episode().deterministic();
  } else {
    auto decoded = states_.Decode(message.recurrent_state(), row);
    if (!decoded.ok()) return decoded.status();
    state = *std::move(decoded);
  }
  if (message.step() != state.step) {
    return RefuseRow(
        "STEP_OUT_OF_ORDER", "step", row,
        absl::StrCat("step ", message.step(),
                     " was sent with a state for step ", state.step, "."),
        "Send a state with the step that it was given for.", state.step);
  }
  return std::make_shared<const HeldState>(std::move(state));
}

absl::StatusOr<StepClaim> InferenceRequestDecoder::DecodeRow(
    const v1::StepRow& message, int64_t row) const {
  StepClaim claim;
  auto held = DecodeHeld(message, row);
  if (!held.ok()) return held.status();
  claim.held = *std::move(held);
  claim.episode_id = message.episode_id();
  claim.incarnation = message.incarnation();
  claim.step = message.step();
  if (message.has_previous_outcome()) {
    if (claim.held != nullptr && claim.step == 0) {
      return RefuseRow("MALFORMED_REQUEST", "previous_outcome", row,
                       "step 0 has no step before it.",
                       "Leave previous_outcome unset at step 0.");
    }
    auto outcome =
        DecodeOutcome(message.previous_outcome(), "previous_outcome", row);
    if (!outcome.ok()) return outcome.status();
    claim.previous = *std::move(outcome);
  }
  return claim;
}

absl::StatusOr<at::Tensor> InferenceRequestDecoder::DecodeCategorical(
    const v1::Tensor& message, int64_t rows, const std::string& field,
    const std::vector<bool>& read) const {
  if (categorical_count_ == 0) {
    if (codec::IsAbsent(message)) return at::Tensor();
    return RefuseRow("BAD_SHAPE", field, -1,
                     absl::StrCat("The policy has no categorical input, got ",
                                  codec::Describe(message), "."),
                     "Leave the field unset.");
  }
  std::vector<v1::DataType> dtypes = {v1::DATA_TYPE_INT8};
  if (cardinality_ > 128) dtypes = {v1::DATA_TYPE_INT64};
  auto decoded =
      codec::DecodeTensor(message, {field, {rows, categorical_count_}, dtypes});
  if (!decoded.ok()) return decoded.status();
  at::Tensor values = *std::move(decoded);
  // By hand: for a small call a conversion costs more than all of this.
  if (values.scalar_type() == at::kChar) {
    const int8_t* narrow = values.const_data_ptr<int8_t>();
    at::Tensor wide = at::empty(values.sizes(), at::kLong);
    std::copy_n(narrow, values.numel(), wide.mutable_data_ptr<int64_t>());
    values = std::move(wide);
  }
  const int64_t* value = values.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < values.numel(); ++i) {
    const int64_t row = i / categorical_count_;
    if (!read.empty() && !read[row]) continue;
    if (value[i] >= -1 && value[i] < cardinality_) continue;
    return RefuseRow(
        "BAD_BLUEPRINT_INDEX", field, row,
        absl::StrCat(field, " holds ", value[i], " in row ", row,
                     "; it must be in [-1, ", cardinality_ - 1, "]."),
        "Send -1 for an empty slot.");
  }
  return values;
}

absl::StatusOr<ActionInput> InferenceRequestDecoder::DecodeAction(
    const v1::GetActionRequest& request) const {
  if (request.requires_grad()) return InferenceOnly();
  const absl::Status size = CheckSize(request, request.rows_size(), "rows");
  if (!size.ok()) return size;
  const int64_t rows = request.rows_size();

  ActionInput input;
  auto observations =
      codec::DecodeTensor(request.observations(),
                          {"observations",
                           {rows, observation_width_},
                           {v1::DATA_TYPE_FLOAT32, v1::DATA_TYPE_BFLOAT16}});
  if (!observations.ok()) return observations.status();
  input.observations = *std::move(observations);
  const absl::Status finite =
      codec::CheckFinite(input.observations, "observations");
  if (!finite.ok()) return finite;

  auto categorical =
      DecodeCategorical(request.categorical(), rows, "categorical", {});
  if (!categorical.ok()) return categorical.status();
  input.categorical = *std::move(categorical);

  auto masks = masks_.Decode(request.action_masks(), rows, "action_masks");
  if (!masks.ok()) return masks.status();
  input.masks = *std::move(masks);
  const absl::Status not_empty = masks_.CheckNotEmpty(input.masks);
  if (!not_empty.ok()) return not_empty;

  for (int64_t row = 0; row < rows; ++row) {
    auto claim = DecodeRow(request.rows(row), row);
    if (!claim.ok()) return claim.status();
    input.claims.push_back(*std::move(claim));
  }
  return input;
}

absl::StatusOr<CloseInput> InferenceRequestDecoder::DecodeClose(
    const v1::CloseEpisodesRequest& request) const {
  const absl::Status size =
      CheckSize(request, request.episodes_size(), "episodes");
  if (!size.ok()) return size;
  const int64_t rows = request.episodes_size();

  CloseInput input;
  std::vector<bool> truncated(rows, false);
  for (int64_t row = 0; row < rows; ++row) {
    const v1::EpisodeEnd& message = request.episodes(row);
    CloseClaim claim;
    claim.episode_id = message.episode_id();
    claim.incarnation = message.incarnation();
    claim.steps = message.steps();
    claim.truncated = message.end_kind() == v1::END_KIND_TRUNCATED;
    claim.aborted = message.end_kind() == v1::END_KIND_ABORTED;
    if (!claim.truncated && !claim.aborted &&
        message.end_kind() != v1::END_KIND_TERMINATED) {
      return RefuseRow("MALFORMED_REQUEST", "end_kind", row,
                       absl::StrCat("the end kind is not set."),
                       "Say how the episode ended.");
    }
    if (message.has_last_outcome()) {
      auto outcome = DecodeOutcome(message.last_outcome(), "last_outcome", row);
      if (!outcome.ok()) return outcome.status();
      claim.last = *std::move(outcome);
    }
    truncated[row] = claim.truncated;
    input.claims.push_back(std::move(claim));
  }
  if (std::find(truncated.begin(), truncated.end(), true) == truncated.end()) {
    return input;
  }
  auto observations =
      codec::DecodeTensor(request.final_observations(),
                          {"final_observations",
                           {rows, observation_width_},
                           {v1::DATA_TYPE_FLOAT32, v1::DATA_TYPE_BFLOAT16}});
  if (!observations.ok()) return observations.status();
  input.observations = *std::move(observations);
  const absl::Status finite =
      CheckFiniteRows(input.observations, "final_observations", truncated);
  if (!finite.ok()) return finite;
  auto categorical = DecodeCategorical(request.final_categorical(), rows,
                                       "final_categorical", truncated);
  if (!categorical.ok()) return categorical.status();
  input.categorical = *std::move(categorical);
  // The value needs no masks, but a call that sends them must send right ones.
  if (!codec::IsAbsent(request.final_action_masks())) {
    const auto masks =
        masks_.Decode(request.final_action_masks(), rows, "final_action_masks");
    if (!masks.ok()) return masks.status();
  }
  return input;
}

}  // namespace esper::server
