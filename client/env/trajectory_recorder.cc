#include "client/env/trajectory_recorder.h"

#include <algorithm>

#include "client/tensor.h"

namespace esper::client {
namespace {

template <typename T, typename U>
void Append(std::vector<T>& to, const std::vector<U>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

// uint8, unless some head has more choices.
v1::Tensor PackActions(const std::vector<int64_t>& actions,
                       const std::vector<int64_t>& shape) {
  const bool fits = std::all_of(actions.begin(), actions.end(),
                                [](int64_t action) { return action < 256; });
  if (!fits) return PackTensor(actions, shape);
  return PackTensor(std::vector<uint8_t>(actions.begin(), actions.end()),
                    shape);
}

}  // namespace

void TrajectoryRecorder::Add(const PolicyInput& input, const ActionRow& action,
                             const StepOutcome& outcome) {
  Append(observations_, input.observation);
  Append(categorical_, input.categorical);
  Append(masks_, input.packed_mask);
  Append(actions_, action.actions);
  Append(continuous_, action.continuous);
  Append(log_probs_, action.log_probs);
  values_.push_back(action.value);
  versions_.push_back(action.policy_version);
  rewards_.push_back(outcome.reward);
  effective_.push_back(outcome.effective_choice);
  forced_.push_back(outcome.forced ? 1 : 0);
  // As wide as the categorical input: one entry per slot.
  for (size_t s = 0; s < input.categorical.size(); ++s) {
    const bool measured = s < outcome.contribution_mask.size() &&
                          outcome.contribution_mask[s] != 0;
    target_mask_.push_back(measured ? 1 : 0);
    targets_.push_back(measured ? outcome.contribution_targets[s] : 0);
    measured_ |= measured;
  }
}

void TrajectoryRecorder::ForfeitEarlierRewards() {
  if (!rewards_.empty()) std::fill(rewards_.begin(), rewards_.end() - 1, 0);
}

v1::Trajectory TrajectoryRecorder::Finish(const std::string& spec_digest,
                                          const std::string& episode_key,
                                          v1::EndKind end_kind,
                                          float bootstrap_value) const {
  const int64_t length = steps();
  const auto width = [length](const auto& values) {
    return length == 0 ? 0 : static_cast<int64_t>(values.size()) / length;
  };
  v1::Trajectory trajectory;
  trajectory.set_spec_digest(spec_digest);
  trajectory.set_episode_key(episode_key);
  *trajectory.mutable_observations() =
      PackTensor(observations_, {length, width(observations_)});
  if (!categorical_.empty()) {
    *trajectory.mutable_categorical() =
        PackTensor(categorical_, {length, width(categorical_)});
  }
  if (!masks_.empty()) {
    *trajectory.mutable_action_masks() =
        PackTensor(masks_, {length, width(masks_)});
  }
  *trajectory.mutable_actions() =
      PackActions(actions_, {length, width(actions_)});
  if (!continuous_.empty()) {
    *trajectory.mutable_continuous_actions() =
        PackTensor(continuous_, {length, width(continuous_)});
  }
  v1::BehaviourNumbers* behaviour = trajectory.mutable_behaviour();
  behaviour->set_kind(v1::NUMBER_KIND_BEHAVIOUR);
  *behaviour->mutable_log_probs() =
      PackTensor(log_probs_, {length, width(log_probs_)});
  *behaviour->mutable_values() = PackTensor(values_, {length});
  *trajectory.mutable_policy_versions() = PackTensor(versions_, {length});
  *trajectory.mutable_rewards() = PackTensor(rewards_, {length});
  *trajectory.mutable_effective_choices() = PackActions(effective_, {length});
  *trajectory.mutable_forced() = PackBools(forced_, {length});
  if (measured_) {
    *trajectory.mutable_contribution_targets() =
        PackTensor(targets_, {length, width(targets_)});
    *trajectory.mutable_contribution_mask() =
        PackBools(target_mask_, {length, width(target_mask_)});
  }
  trajectory.set_end_kind(end_kind);
  if (end_kind == v1::END_KIND_TRUNCATED) {
    trajectory.set_bootstrap_value(bootstrap_value);
  }
  return trajectory;
}

}  // namespace esper::client
