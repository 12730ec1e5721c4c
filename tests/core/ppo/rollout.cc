#include "tests/core/ppo/rollout.h"

#include <algorithm>
#include <random>

#include "ATen/TensorOperators.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/full.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/zeros.h"
#include "core/policy/head_layout.h"
#include "core/policy/inference_policy.h"

namespace esper::ppo {
namespace {

using policy::PolicySpec;

class Dice {
 public:
  explicit Dice(uint64_t seed) : random_(seed) {}

  at::Tensor Normal(at::IntArrayRef sizes) {
    at::Tensor x = at::empty(sizes, at::kFloat);
    float* data = x.mutable_data_ptr<float>();
    for (int64_t i = 0; i < x.numel(); ++i) data[i] = normal_(random_);
    return x;
  }
  at::Tensor Flags(at::IntArrayRef sizes, double share) {
    at::Tensor x = at::empty(sizes, at::kBool);
    bool* data = x.mutable_data_ptr<bool>();
    for (int64_t i = 0; i < x.numel(); ++i)
      data[i] = Below(1000) < 1000 * share;
    return x;
  }
  int64_t Below(int64_t n) { return static_cast<int64_t>(random_() % n); }
  float Number() { return normal_(random_); }

 private:
  std::mt19937_64 random_;
  std::normal_distribution<float> normal_;
};

// bool [rows, size], at least one entry of each row true.
at::Tensor RandomMask(Dice& dice, int64_t rows, int64_t size) {
  at::Tensor mask = dice.Flags({rows, size}, 0.6);
  for (int64_t b = 0; b < rows; ++b) mask[b][dice.Below(size)].fill_(true);
  return mask;
}

// Copies of one row out of per-step tensors [B, ...], stacked to [T, ...].
at::Tensor RowOf(const std::vector<at::Tensor>& steps, int64_t row,
                 int64_t length) {
  std::vector<int64_t> sizes = steps[0].sizes().vec();
  sizes[0] = length;
  at::Tensor out = at::empty(sizes, steps[0].options());
  for (int64_t t = 0; t < length; ++t) out[t].copy_(steps[t][row]);
  return out;
}

at::Tensor Numbers(const policy::BehaviourTensor& numbers) {
  at::Tensor copy = at::empty(numbers.sizes(), at::kFloat);
  numbers.CopyTo(copy);
  return copy;
}

// What was seen and done at each step, all rows together.
struct Steps {
  std::vector<at::Tensor> observations, categorical, masks, actions, continuous,
      log_probs, values;
};

}  // namespace

PolicySpec SmallSpec() {
  policy::NetworkGrowingOptions options;
  options.slot_ids = {"r0c0", "r0c1"};
  options.feature_dim = 24;
  options.hidden_dim = 24;
  return PolicySpec::NetworkGrowing(options);
}

PolicySpec BanditSpec(int64_t arms) {
  PolicySpec spec;
  spec.name = "bandit";
  spec.observation = {{"context", 2}};
  policy::HeadSpec arm;
  arm.name = "arm";
  arm.size = arms;
  arm.hidden = {16};
  spec.heads = {arm};
  spec.sampling_order = {"arm"};
  spec.feature_dim = 16;
  spec.hidden_dim = 16;
  spec.mask_optional = true;
  return spec;
}

std::vector<Trajectory> Rollout(const PolicySpec& spec,
                                const PolicySnapshot& snapshot,
                                const RolloutOptions& options) {
  Dice dice(options.seed);
  const int64_t rows = static_cast<int64_t>(options.lengths.size());
  const int64_t longest =
      *std::max_element(options.lengths.begin(), options.lengths.end());
  const auto policy =
      policy::InferencePolicy::Create(spec, snapshot.weights, snapshot.version);
  const policy::HeadLayout& layout = (*policy)->layout();
  policy::SampleOptions acting;
  acting.floors = snapshot.floors;
  const int64_t conditional = layout.conditional_head();

  policy::RecurrentState state;
  if (options.initial_states) {
    const int64_t sizes[] = {spec.lstm_layers, rows, spec.hidden_dim};
    state = {dice.Normal(sizes).mul_(0.3), dice.Normal(sizes).mul_(0.3)};
  }
  const policy::RecurrentState initial = state;
  Steps steps;
  policy::PolicyInputs inputs;
  at::Tensor last_values;
  for (int64_t t = 0; t <= longest; ++t) {
    const at::Tensor raw =
        dice.Normal({rows, spec.observation_width()}).mul_(2.0).add_(1.0);
    inputs.observations = snapshot.scaler.Apply(raw);
    if (spec.categorical_count() > 0) {
      inputs.categorical = at::full({rows, spec.categorical_count()},
                                    dice.Below(5) - 1, at::kLong);
    }
    inputs.action_masks = at::ones({rows, layout.width()}, at::kBool);
    if (options.random_masks) {
      for (int64_t k = 0; k < layout.num_heads(); ++k) {
        if (layout.is_gaussian(k)) continue;
        inputs.action_masks
            .slice(1, layout.offset(k), layout.offset(k) + layout.size(k))
            .copy_(RandomMask(dice, rows, layout.size(k)));
      }
    }
    if (conditional >= 0) {
      const int64_t choices = layout.size(layout.driver(conditional));
      inputs.conditional_mask =
          RandomMask(dice, rows * choices, layout.size(conditional))
              .reshape({rows, choices, -1});
    }
    inputs.state = state;
    policy::CounterKeys keys;
    for (int64_t b = 0; b < rows; ++b) {
      keys.keys.push_back({options.seed * 1000 + static_cast<uint64_t>(b),
                           static_cast<uint64_t>(t), false});
    }
    const policy::ActionSample sample =
        (*policy)->GetAction(inputs, keys, acting);
    last_values = Numbers(sample.values);
    const at::Tensor actions =
        at::empty(sample.actions.sizes(), at::kLong).copy_(sample.actions);
    steps.values.push_back(last_values);
    if (conditional >= 0) {
      for (int64_t b = 0; b < rows; ++b) {
        const int64_t choice =
            actions[b][layout.driver(conditional)].item<int64_t>();
        inputs.action_masks[b]
            .slice(0, layout.offset(conditional),
                   layout.offset(conditional) + layout.size(conditional))
            .copy_(inputs.conditional_mask[b][choice]);
      }
    }
    steps.observations.push_back(raw);
    steps.categorical.push_back(inputs.categorical);
    steps.masks.push_back(inputs.action_masks);
    steps.actions.push_back(actions);
    if (sample.continuous_actions.defined()) {
      steps.continuous.push_back(
          at::empty(sample.continuous_actions.sizes(), at::kFloat)
              .copy_(sample.continuous_actions));
    }
    steps.log_probs.push_back(Numbers(sample.log_probs));
    state = sample.next_state;
  }

  std::vector<Trajectory> trajectories;
  for (int64_t b = 0; b < rows; ++b) {
    const int64_t n = options.lengths[b];
    Trajectory row;
    row.episode = "row" + std::to_string(b);
    row.spec_digest = spec.Digest();
    row.observations = RowOf(steps.observations, b, n);
    if (spec.categorical_count() > 0) {
      row.categorical = RowOf(steps.categorical, b, n);
    }
    row.action_masks = RowOf(steps.masks, b, n);
    row.actions = RowOf(steps.actions, b, n);
    if (!steps.continuous.empty()) {
      row.continuous_actions = RowOf(steps.continuous, b, n);
    }
    row.behaviour_log_probs = RowOf(steps.log_probs, b, n);
    row.values = RowOf(steps.values, b, n);
    row.policy_versions = at::full({n}, snapshot.version, at::kLong);
    row.rewards = dice.Normal({n});
    if (options.reward) {
      for (int64_t t = 0; t < n; ++t) {
        row.rewards[t].fill_(options.reward(b, t, row.actions[t]));
      }
    }
    if (options.continuous_reward) {
      for (int64_t t = 0; t < n; ++t) {
        row.rewards[t].fill_(
            options.continuous_reward(b, t, row.continuous_actions[t]));
      }
    }
    if (options.forced_share > 0) {
      row.forced = dice.Flags({n}, options.forced_share);
    }
    if (options.contributions && spec.contribution_outputs > 0) {
      row.contribution_targets = dice.Normal({n, spec.contribution_outputs});
      row.contribution_mask = dice.Flags({n, spec.contribution_outputs}, 0.7);
      row.contribution_fresh = dice.Flags({n}, 0.7);
    }
    if (options.initial_states) {
      row.initial_h = initial.h.select(1, b).contiguous();
      row.initial_c = initial.c.select(1, b).contiguous();
    }
    row.end = b % 2 == 0 ? EpisodeEnd::kTruncated : EpisodeEnd::kTerminated;
    if (row.end == EpisodeEnd::kTruncated) {
      // V of the observation behind the last step.
      row.bootstrap_value = steps.values[n][b].item<float>();
    }
    trajectories.push_back(std::move(row));
  }
  return trajectories;
}

}  // namespace esper::ppo
