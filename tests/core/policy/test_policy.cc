#include "tests/core/policy/test_policy.h"

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/stack.h"
#include "c10/core/GradMode.h"

namespace esper::policy {

TestPolicy::TestPolicy(const PolicySpec& spec)
    : module_(std::make_shared<RecurrentPolicy>(spec, /*init_seed=*/11)),
      generator_(at::make_generator<at::CPUGeneratorImpl>(7)) {
  module_->eval();
  {
    const c10::NoGradGuard no_grad;
    for (at::Tensor parameter : module_->parameters()) {
      parameter.add_(Normal(parameter.sizes()), 0.1);
    }
  }
  inference_ = *InferencePolicy::Create(spec, module_->StateDict(),
                                        /*policy_version=*/1);
}

at::Tensor TestPolicy::Normal(at::IntArrayRef sizes) {
  return at::empty(sizes, at::kFloat).normal_(0, 1, generator_);
}

at::Tensor TestPolicy::Bits(at::IntArrayRef sizes) {
  return Normal(sizes).gt(0);
}

std::vector<NoiseKey> TestPolicy::Keys(int64_t batch) const {
  std::vector<NoiseKey> keys;
  for (int64_t b = 0; b < batch; ++b) {
    keys.push_back({static_cast<uint64_t>(100 + b), 3});
  }
  return keys;
}

at::Tensor TestPolicy::RandomMasks(int64_t rows) {
  const HeadLayout& layout = module_->layout();
  at::Tensor masks = Bits({rows, layout.width()});
  const at::Tensor pick =
      Normal({rows, layout.num_heads()}).abs().mul(1000).to(at::kLong);
  const int64_t* random = pick.const_data_ptr<int64_t>();
  bool* mask = masks.mutable_data_ptr<bool>();
  for (int64_t n = 0; n < rows; ++n) {
    for (int64_t k = 0; k < layout.num_heads(); ++k) {
      const int64_t drawn = *random++;
      if (layout.is_gaussian(k)) continue;
      const int64_t forced = drawn % layout.size(k);
      mask[n * layout.width() + layout.offset(k) + forced] = true;
    }
  }
  return masks;
}

PolicyInputs TestPolicy::RandomStep(int64_t batch) {
  const PolicySpec& spec = module_->spec();
  const HeadLayout& layout = module_->layout();
  PolicyInputs inputs;
  inputs.observations = Normal({batch, spec.observation_width()});
  if (spec.categorical.has_value()) {
    inputs.categorical = Normal({batch, spec.categorical_count()})
                             .mul(4)
                             .clamp(-1, spec.categorical->cardinality - 1)
                             .to(at::kLong);
  }
  const std::vector<int64_t> state = {spec.lstm_layers, batch, spec.hidden_dim};
  inputs.state = {Normal(state).mul(0.5), Normal(state)};
  inputs.action_masks = RandomMasks(batch);
  const int64_t k = layout.conditional_head();
  if (k >= 0) {
    inputs.conditional_mask =
        Bits({batch, layout.size(layout.driver(k)), layout.size(k)});
    // No choice of the driver leaves the head without a choice.
    inputs.conditional_mask.select(2, 0).fill_(true);
  }
  return inputs;
}

at::Tensor TestPolicy::MasksInForce(const at::Tensor& base,
                                    const at::Tensor& conditional,
                                    const at::Tensor& actions) const {
  const HeadLayout& layout = module_->layout();
  at::Tensor masks = base.clone();
  const int64_t k = layout.conditional_head();
  if (k < 0) return masks;
  for (int64_t n = 0; n < masks.size(0); ++n) {
    const int64_t choice = actions[n][layout.driver(k)].item<int64_t>();
    masks[n]
        .narrow(0, layout.offset(k), layout.size(k))
        .copy_(conditional[n][choice]);
  }
  return masks;
}

TestPolicy::Step TestPolicy::SampleStep(int64_t batch) {
  Step result;
  result.inputs = RandomStep(batch);
  const PolicyInputs& step = result.inputs;
  result.sample = inference_->GetAction(step, CounterKeys{Keys(batch)});
  const ActionSample& sample = result.sample;
  EvaluationInputs& inputs = result.recorded;
  inputs.observations = step.observations.unsqueeze(1);
  if (step.categorical.defined()) {
    inputs.categorical = step.categorical.unsqueeze(1);
  }
  inputs.actions = sample.actions.clone().unsqueeze(1);
  if (sample.continuous_actions.defined()) {
    inputs.continuous_actions = sample.continuous_actions.clone().unsqueeze(1);
  }
  inputs.action_masks =
      MasksInForce(step.action_masks, step.conditional_mask, sample.actions)
          .unsqueeze(1);
  inputs.state = step.state;
  return result;
}

std::pair<ActionSample, EvaluationInputs> TestPolicy::SampleAndRecord(
    int64_t batch) {
  Step step = SampleStep(batch);
  return {std::move(step.sample), std::move(step.recorded)};
}

BehaviourTensor TestPolicy::Recorded(const ActionSample& sample) const {
  return BehaviourTensor::FromRecorded(
      sample.log_probs.unsafe_tensor().clone().unsqueeze(1),
      std::make_shared<BehaviourOrigin>(sample.log_probs.origin()));
}

std::pair<at::Tensor, EvaluationInputs> TestPolicy::Rollout(int64_t batch,
                                                            int64_t steps) {
  std::vector<at::Tensor> log_probs, observations, categorical, actions,
      continuous, masks;
  EvaluationInputs inputs;
  inputs.state = RandomStep(batch).state;
  RecurrentState state = inputs.state;
  for (int64_t t = 0; t < steps; ++t) {
    PolicyInputs step = RandomStep(batch);
    step.state = state;
    std::vector<NoiseKey> keys = Keys(batch);
    for (NoiseKey& key : keys) key.step = static_cast<uint64_t>(t);
    const ActionSample sample = inference_->GetAction(step, CounterKeys{keys});
    state = sample.next_state;
    log_probs.push_back(sample.log_probs.unsafe_tensor().clone());
    observations.push_back(step.observations);
    if (step.categorical.defined()) categorical.push_back(step.categorical);
    actions.push_back(sample.actions.clone());
    if (sample.continuous_actions.defined()) {
      continuous.push_back(sample.continuous_actions.clone());
    }
    masks.push_back(
        MasksInForce(step.action_masks, step.conditional_mask, sample.actions));
  }
  inputs.observations = at::stack(observations, 1);
  if (!categorical.empty()) inputs.categorical = at::stack(categorical, 1);
  inputs.actions = at::stack(actions, 1);
  if (!continuous.empty()) inputs.continuous_actions = at::stack(continuous, 1);
  inputs.action_masks = at::stack(masks, 1);
  return {at::stack(log_probs, 1), std::move(inputs)};
}

}  // namespace esper::policy
