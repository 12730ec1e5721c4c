#include "client/policy_messages.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/tensor.h"

namespace esper::client {
namespace {

// Rows of one tensor, appended one by one; all must be equally wide.
template <typename T>
class RowBuilder {
 public:
  RowBuilder(std::string name, int64_t rows)
      : name_(std::move(name)), rows_(rows) {}

  absl::Status Append(const std::vector<T>& row, int64_t index) {
    if (width_ < 0) width_ = static_cast<int64_t>(row.size());
    if (static_cast<int64_t>(row.size()) != width_) {
      return absl::InvalidArgumentError(
          absl::StrCat("Row ", index, " of ", name_, " has ", row.size(),
                       " entries, the rows before it ", width_, "."));
    }
    values_.insert(values_.end(), row.begin(), row.end());
    return absl::OkStatus();
  }

  bool empty() const { return width_ <= 0; }
  v1::Tensor Tensor() const { return PackTensor<T>(values_, {rows_, width_}); }

 private:
  const std::string name_;
  const int64_t rows_;
  int64_t width_ = -1;
  std::vector<T> values_;
};

// The three tensors that show N rows to a policy.
class InputBuilder {
 public:
  explicit InputBuilder(int64_t rows)
      : observations_("observations", rows),
        categorical_("categorical", rows),
        masks_("action_masks", rows) {}

  absl::Status Append(const PolicyInput& input, int64_t row) {
    absl::Status status = observations_.Append(input.observation, row);
    if (status.ok()) status = categorical_.Append(input.categorical, row);
    if (status.ok()) status = masks_.Append(input.packed_mask, row);
    return status;
  }

  const RowBuilder<float>& observations() const { return observations_; }
  const RowBuilder<int8_t>& categorical() const { return categorical_; }
  const RowBuilder<uint8_t>& masks() const { return masks_; }

 private:
  RowBuilder<float> observations_;
  RowBuilder<int8_t> categorical_;
  RowBuilder<uint8_t> masks_;
};

void ToProto(const StepOutcome& outcome, v1::StepOutcome* proto) {
  proto->set_reward(outcome.reward);
  proto->set_effective_choice(outcome.effective_choice);
  proto->set_forced(outcome.forced);
  proto->set_forfeits_earlier_rewards(outcome.forfeits_earlier_rewards);
  uint64_t bits = 0;
  for (size_t i = 0; i < outcome.contribution_mask.size() && i < 64; ++i) {
    if (outcome.contribution_mask[i]) bits |= uint64_t{1} << i;
  }
  if (bits == 0) return;
  proto->set_contribution_mask(bits);
  proto->set_contribution_targets(
      outcome.contribution_targets.data(),
      outcome.contribution_targets.size() * sizeof(float));
}

PolicyInput ZerosLike(const PolicyInput& input) {
  PolicyInput zeros;
  zeros.observation.assign(input.observation.size(), 0);
  zeros.categorical.assign(input.categorical.size(), 0);
  zeros.packed_mask.assign(input.packed_mask.size(), 0);
  return zeros;
}

absl::Status BrokenReply(const absl::Status& status) {
  return absl::InternalError(absl::StrCat("The server's reply is malformed: ",
                                          std::string(status.message())));
}

template <typename T>
std::vector<T> Row(const std::vector<T>& values, int64_t row, int64_t width) {
  return {values.begin() + row * width, values.begin() + (row + 1) * width};
}

}  // namespace

absl::StatusOr<v1::GetActionRequest> ToRequest(const std::vector<StepRow>& rows,
                                               bool return_entropies) {
  if (rows.empty()) return absl::InvalidArgumentError("There is no row.");
  v1::GetActionRequest request;
  InputBuilder inputs(static_cast<int64_t>(rows.size()));
  for (size_t i = 0; i < rows.size(); ++i) {
    v1::StepRow* row = request.add_rows();
    if (!rows[i].recurrent_state.empty()) {
      row->set_recurrent_state(rows[i].recurrent_state);
    } else if (rows[i].client_episode) {
      row->mutable_client_episode()->set_seed(rows[i].client_episode->seed);
      row->mutable_client_episode()->set_deterministic(
          rows[i].client_episode->deterministic);
    } else {
      row->set_episode_id(rows[i].episode.id);
      row->set_incarnation(rows[i].episode.incarnation);
    }
    row->set_step(rows[i].step);
    if (rows[i].previous_outcome) {
      ToProto(*rows[i].previous_outcome, row->mutable_previous_outcome());
    }
    absl::Status status = inputs.Append(rows[i].input, i);
    if (!status.ok()) return status;
  }
  *request.mutable_observations() = inputs.observations().Tensor();
  if (!inputs.categorical().empty()) {
    *request.mutable_categorical() = inputs.categorical().Tensor();
  }
  if (!inputs.masks().empty()) {
    *request.mutable_action_masks() = inputs.masks().Tensor();
  }
  request.set_return_entropies(return_entropies);
  return request;
}

absl::StatusOr<v1::CloseEpisodesRequest> ToRequest(
    const std::vector<EpisodeClose>& episodes) {
  if (episodes.empty()) {
    return absl::InvalidArgumentError("There is no episode to close.");
  }
  v1::CloseEpisodesRequest request;
  const PolicyInput* pattern = nullptr;
  for (size_t i = 0; i < episodes.size(); ++i) {
    const EpisodeClose& episode = episodes[i];
    v1::EpisodeEnd* end = request.add_episodes();
    end->set_episode_id(episode.episode.id);
    end->set_incarnation(episode.episode.incarnation);
    end->set_steps(episode.steps);
    end->set_end_kind(episode.end_kind);
    if (episode.last_outcome) {
      ToProto(*episode.last_outcome, end->mutable_last_outcome());
    }
    if (episode.end_kind != v1::END_KIND_TRUNCATED) continue;
    if (!episode.final_input) {
      return absl::InvalidArgumentError(absl::StrCat(
          "Row ", i, " is truncated but has no final observation."));
    }
    if (pattern == nullptr) pattern = &*episode.final_input;
  }
  if (pattern == nullptr) return request;
  InputBuilder inputs(static_cast<int64_t>(episodes.size()));
  const PolicyInput zeros = ZerosLike(*pattern);
  for (size_t i = 0; i < episodes.size(); ++i) {
    const bool truncated = episodes[i].end_kind == v1::END_KIND_TRUNCATED;
    absl::Status status =
        inputs.Append(truncated ? *episodes[i].final_input : zeros, i);
    if (!status.ok()) return status;
  }
  *request.mutable_final_observations() = inputs.observations().Tensor();
  if (!inputs.categorical().empty()) {
    *request.mutable_final_categorical() = inputs.categorical().Tensor();
  }
  if (!inputs.masks().empty()) {
    *request.mutable_final_action_masks() = inputs.masks().Tensor();
  }
  return request;
}

absl::StatusOr<std::vector<ActionRow>> FromResponse(
    const v1::GetActionResponse& response, int64_t rows) {
  const int64_t heads =
      response.actions().shape_size() == 2 ? response.actions().shape(1) : -1;
  auto actions = UnpackIntegers(response.actions(), {rows, heads}, "actions");
  if (!actions.ok()) return BrokenReply(actions.status());
  std::vector<float> continuous;
  int64_t continuous_width = 0;
  if (response.has_continuous_actions()) {
    auto unpacked = UnpackTensor<float>(response.continuous_actions(),
                                        {rows, -1}, "continuous_actions");
    if (!unpacked.ok()) return BrokenReply(unpacked.status());
    continuous = *std::move(unpacked);
    continuous_width = response.continuous_actions().shape(1);
  }
  const v1::BehaviourNumbers& behaviour = response.behaviour();
  if (behaviour.kind() != v1::NUMBER_KIND_BEHAVIOUR) {
    return absl::InternalError("The server's reply holds no behaviour.");
  }
  auto log_probs = UnpackTensor<float>(behaviour.log_probs(), {rows, heads},
                                       "behaviour.log_probs");
  if (!log_probs.ok()) return BrokenReply(log_probs.status());
  auto values =
      UnpackTensor<float>(behaviour.values(), {rows}, "behaviour.values");
  if (!values.ok()) return BrokenReply(values.status());
  auto versions = UnpackTensor<int64_t>(response.policy_versions(), {rows},
                                        "policy_versions");
  if (!versions.ok()) return BrokenReply(versions.status());
  std::vector<float> entropies;
  if (behaviour.has_entropies()) {
    auto unpacked = UnpackTensor<float>(behaviour.entropies(), {rows, heads},
                                        "behaviour.entropies");
    if (!unpacked.ok()) return BrokenReply(unpacked.status());
    entropies = *std::move(unpacked);
  }
  const int states = response.recurrent_states_size();
  if (states != 0 && states != rows) {
    return absl::InternalError(absl::StrCat("The server's reply has ", states,
                                            " states for ", rows, " rows."));
  }
  std::vector<ActionRow> result(rows);
  for (int64_t i = 0; i < rows; ++i) {
    if (states != 0) {
      result[i].recurrent_state = response.recurrent_states(i);
    }
    result[i].actions = Row(*actions, i, heads);
    result[i].continuous = Row(continuous, i, continuous_width);
    result[i].log_probs = Row(*log_probs, i, heads);
    result[i].value = (*values)[i];
    result[i].policy_version = (*versions)[i];
    if (!entropies.empty()) result[i].entropies = Row(entropies, i, heads);
  }
  return result;
}

absl::StatusOr<std::vector<ClosedEpisode>> FromResponse(
    const v1::CloseEpisodesResponse& response, int64_t rows) {
  auto values = UnpackTensor<float>(response.bootstrap_values(), {rows},
                                    "bootstrap_values");
  if (!values.ok()) return BrokenReply(values.status());
  auto returns = UnpackTensor<double>(response.returns(), {rows}, "returns");
  if (!returns.ok()) return BrokenReply(returns.status());
  std::vector<ClosedEpisode> result(rows);
  for (int64_t i = 0; i < rows; ++i) {
    result[i] = {(*values)[i], (*returns)[i]};
  }
  return result;
}

}  // namespace esper::client
