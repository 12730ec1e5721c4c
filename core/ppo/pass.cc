#include "core/ppo/pass.h"

#include <algorithm>

#include "ATen/TensorOperators.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/tensor.h"
#include "ATen/ops/where.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "core/error.h"

namespace esper::ppo {
namespace {

void Append(const std::vector<float>& from, std::vector<float>& to) {
  to.insert(to.end(), from.begin(), from.end());
}

at::Tensor ToTensor(const std::vector<float>& values) {
  return at::tensor(values, at::kFloat);
}

// The numbers as a tensor for arithmetic without gradient.
at::Tensor Numbers(const policy::BehaviourTensor& numbers) {
  at::Tensor copy = at::empty(numbers.sizes(), at::kFloat);
  numbers.CopyTo(copy);
  return copy;
}

// What does not depend on the kind of evaluation.
LossInputs BindGiven(const policy::BehaviourTensor& before,
                     const TrajectoryBatch& batch, const HeadUse& use) {
  LossInputs inputs;
  if (before.defined()) inputs.old_log_probs = batch.Flatten(Numbers(before));
  inputs.relevant = use.relevant;
  inputs.available = use.available;
  inputs.forced = batch.Flatten(batch.forced);
  if (batch.contribution_targets.defined()) {
    inputs.contribution_targets = batch.Flatten(batch.contribution_targets);
    inputs.contribution_active = batch.Flatten(batch.contribution_active);
  }
  return inputs;
}

}  // namespace

std::vector<std::vector<double>> NormalizeRewards(
    absl::Span<const Trajectory> trajectories, RewardNormalizer* normalizer) {
  std::vector<std::vector<double>> scaled(trajectories.size());
  int64_t longest = 0;
  for (const Trajectory& row : trajectories) {
    longest = std::max(longest, row.length());
  }
  for (int64_t t = 0; t < longest; ++t) {
    for (size_t b = 0; b < trajectories.size(); ++b) {
      if (t >= trajectories[b].length()) continue;
      const auto reward = normalizer->Normalize(
          trajectories[b].rewards.const_data_ptr<float>()[t]);
      TORCH_INTERNAL_ASSERT(reward.ok(), reward.status().ToString());
      scaled[b].push_back(*reward);
    }
  }
  return scaled;
}

PassTargets ComputeTargets(absl::Span<const Trajectory> trajectories,
                           const ReturnOptions& options,
                           const RewardUnits& units) {
  GaeOptions gae;
  gae.gamma = options.gamma;
  gae.lambda = options.gae_lambda;
  gae.ends = options.ends;
  std::vector<float> advantages, returns, all_values, td_errors;
  std::vector<float> all_rewards, all_bootstraps;
  PassTargets targets;
  for (size_t b = 0; b < trajectories.size(); ++b) {
    const Trajectory& row = trajectories[b];
    const int64_t n = row.length();
    const float* raw_rewards = row.rewards.const_data_ptr<float>();
    const float* raw_values = row.values.const_data_ptr<float>();
    const int64_t* versions = row.policy_versions.const_data_ptr<int64_t>();
    std::vector<float> rewards(n), values(n), bootstraps(n, 0.0f);
    std::vector<StepEnd> ends(n, StepEnd::kNone);
    const auto unit = [&](int64_t t) {
      return units.value_unit(versions[t]) / units.deviation;
    };
    for (int64_t t = 0; t < n; ++t) {
      double reward = raw_rewards[t] / units.deviation;
      if (!units.rewards.empty()) {
        reward = units.rewards[b][t];
      } else if (units.clip > 0) {
        reward = std::clamp(reward, -units.clip, units.clip);
      }
      rewards[t] = static_cast<float>(reward);
      values[t] = static_cast<float>(raw_values[t] * unit(t));
    }
    ends[n - 1] = StepEnd::kTerminated;
    if (row.end == EpisodeEnd::kTruncated) {
      ends[n - 1] = StepEnd::kTruncated;
      bootstraps[n - 1] =
          static_cast<float>(row.bootstrap_value.value_or(0) * unit(n - 1));
    }
    const GaeResult result =
        ComputeGae({rewards, values, bootstraps, ends}, gae);
    Append(result.advantages, advantages);
    Append(result.returns, returns);
    Append(result.td_errors, td_errors);
    Append(values, all_values);
    Append(rewards, all_rewards);
    Append(bootstraps, all_bootstraps);
    targets.ends.insert(targets.ends.end(), ends.begin(), ends.end());
    const bool* forced =
        row.forced.defined() ? row.forced.const_data_ptr<bool>() : nullptr;
    for (int64_t t = 0; t < n; ++t) {
      if (options.statistics_over == StatisticsOver::kUnforced &&
          forced != nullptr && forced[t]) {
        continue;
      }
      targets.moments.Add(result.advantages[t]);
    }
  }
  targets.advantages = ToTensor(advantages);
  targets.returns = ToTensor(returns);
  targets.values = ToTensor(all_values);
  targets.td_errors = ToTensor(td_errors);
  targets.rewards = ToTensor(all_rewards);
  targets.bootstraps = ToTensor(all_bootstraps);
  return targets;
}

HeadUse ComputeHeadUse(const TrajectoryBatch& batch,
                       const TrajectoryRules& rules) {
  at::Tensor effective = batch.Flatten(batch.actions);
  if (rules.driver() >= 0) {
    effective.select(1, rules.driver())
        .copy_(batch.Flatten(batch.effective_choices));
  }
  return {rules.layout().Relevance(effective),
          rules.Available(batch.Flatten(batch.action_masks))};
}

LossInputs BindInputs(const policy::Evaluation& now,
                      const policy::BehaviourTensor& before,
                      const TrajectoryBatch& batch, const HeadUse& use) {
  LossInputs inputs = BindGiven(before, batch, use);
  inputs.log_probs = batch.Flatten(now.log_probs.tensor());
  inputs.entropies = batch.Flatten(now.entropies.tensor());
  inputs.values = batch.Flatten(now.values.tensor());
  if (now.q_values.defined()) {
    inputs.q_values = batch.Flatten(now.q_values.tensor());
  }
  if (now.contributions.defined() && inputs.contribution_targets.defined()) {
    inputs.contributions = batch.Flatten(now.contributions.tensor());
  }
  return inputs;
}

LossInputs BindInputs(const policy::ReferenceEvaluation& now,
                      const policy::BehaviourTensor& before,
                      const TrajectoryBatch& batch, const HeadUse& use) {
  LossInputs inputs = BindGiven(before, batch, use);
  inputs.log_probs = batch.Flatten(Numbers(now.log_probs));
  inputs.entropies = batch.Flatten(Numbers(now.entropies));
  inputs.values = batch.Flatten(Numbers(now.values));
  if (now.q_values.defined()) {
    inputs.q_values = batch.Flatten(Numbers(now.q_values));
  }
  if (now.contributions.defined() && inputs.contribution_targets.defined()) {
    inputs.contributions = batch.Flatten(Numbers(now.contributions));
  }
  return inputs;
}

HeadCoefficients ResolveHeads(const PpoOptions& options,
                              const policy::PolicySpec& spec) {
  for (const auto& [head, multiplier] : options.entropy_multipliers) {
    if (spec.HeadIndex(head) >= 0) continue;
    ErrorDetail detail;
    detail.reason = "MALFORMED_REQUEST";
    detail.field = head;
    detail.hint = "Name heads of the policy's specification.";
    throw InvalidArgumentError(
        detail, absl::StrCat("The policy has no head ", head, "."));
  }
  const auto find = [](const std::map<std::string, double>& map,
                       const std::string& head, double otherwise) {
    const auto it = map.find(head);
    return it == map.end() ? otherwise : it->second;
  };
  HeadCoefficients coefficients;
  bool any_floor = false;
  for (const policy::HeadSpec& head : spec.heads) {
    coefficients.multipliers.push_back(
        find(options.entropy_multipliers, head.name, head.entropy_coef));
    const bool floored = head.kind == policy::HeadKind::kCategorical;
    coefficients.floors.push_back(
        floored ? find(options.entropy_floors, head.name, 0) : 0);
    coefficients.floor_coefs.push_back(
        floored ? find(options.entropy_floor_coefs, head.name, 0) : 0);
    any_floor = any_floor || coefficients.floors.back() > 0;
  }
  if (!any_floor) coefficients.floors.clear();
  return coefficients;
}

LogProbDifference CompareLogProbs(const at::Tensor& now,
                                  const at::Tensor& before,
                                  const at::Tensor& counted) {
  const c10::NoGradGuard no_grad;
  LogProbDifference difference;
  difference.steps = counted.sum().item<int64_t>();
  if (difference.steps == 0) return difference;
  const at::Tensor gaps =
      ((now.detach() - before).abs() * counted.unsqueeze(2).to(at::kFloat))
          .contiguous();
  const int64_t steps = gaps.size(1), heads = gaps.size(2);
  const int64_t position = gaps.argmax().item<int64_t>();
  difference.max = gaps.flatten()[position].item<double>();
  difference.mean = gaps.sum(at::kDouble).item<double>() /
                    static_cast<double>(difference.steps * heads);
  difference.row = position / (steps * heads);
  difference.step = position / heads % steps;
  difference.head = position % heads;
  return difference;
}

}  // namespace esper::ppo
