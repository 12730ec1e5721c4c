#include "core/policy/packed_acting.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "ATen/ops/empty.h"
#include "c10/core/InferenceMode.h"
#include "core/policy/network_forward.h"
#include "core/policy/sampler_inputs.h"

namespace esper::policy {
namespace {

// A checked step as plain numbers; keeps what they point into.
class PlainStep {
 public:
  PlainStep(const PolicySpec& spec, const CheckedStep& step)
      : observations_(step.observations.contiguous()) {
    step_.rows = step.batch;
    step_.observations = observations_.const_data_ptr<float>();
    if (step.categorical.defined()) {
      categorical_ = step.categorical.contiguous();
      step_.categorical = categorical_.const_data_ptr<int64_t>();
    }
    if (!step.state.defined()) return;
    state_ = {step.state.h.contiguous(), step.state.c.contiguous()};
    step_.state_stride = step.batch * spec.hidden_dim;
    const float* h = state_.h.const_data_ptr<float>();
    const float* c = state_.c.const_data_ptr<float>();
    for (int64_t row = 0; row < step.batch; ++row) {
      h_.push_back(h + row * spec.hidden_dim);
      c_.push_back(c + row * spec.hidden_dim);
    }
    step_.h = h_.data();
    step_.c = c_.data();
  }
  PlainStep(const PlainStep&) = delete;
  PlainStep& operator=(const PlainStep&) = delete;

  const NetworkStep& get() const { return step_; }

 private:
  at::Tensor observations_, categorical_;
  RecurrentState state_;
  std::vector<const float*> h_, c_;
  NetworkStep step_;
};

template <typename T>
at::Tensor Copied(const std::vector<T>& x, at::IntArrayRef sizes,
                  at::ScalarType type) {
  at::Tensor out = at::empty(sizes, type);
  std::copy_n(x.data(), out.numel(), out.mutable_data_ptr<T>());
  return out;
}

at::Tensor Floats(const std::vector<float>& x, at::IntArrayRef sizes) {
  return Copied<float>(x, sizes, at::kFloat);
}

// [rows, L, H] -> [L, rows, H].
at::Tensor LayersFirst(const std::vector<float>& x, int64_t rows,
                       const PolicySpec& spec) {
  return Floats(x, {rows, spec.lstm_layers, spec.hidden_dim})
      .transpose(0, 1)
      .contiguous();
}

// The trunk's output, [rows, H].
at::Tensor TrunkOf(const NetworkResult& network, int64_t rows, int64_t hidden) {
  return Floats(network.trunk, {rows, network.trunk_stride})
      .narrow(1, 0, hidden);
}

// Buffers of this thread.
ActingResult& ThreadResult() {
  static thread_local ActingResult result;
  return result;
}

}  // namespace

ActionSample GetAction(const ActingPolicy& policy, const PackedPolicy& packed,
                       const PolicyInputs& inputs, const Noise& noise,
                       const SampleOptions& options) {
  const PolicySpec& spec = *policy.spec;
  const HeadLayout& layout = *policy.layout;
  const CheckedStep step = CheckStep(spec, inputs, "GetAction");
  const int64_t rows = step.batch;

  const c10::InferenceMode inference;
  at::Tensor masks = CheckMasks(layout, inputs.action_masks, rows);
  CheckConditional(layout, inputs.conditional_mask, inputs, rows);
  CheckNoise(noise, layout, rows);
  std::shared_ptr<const BehaviourOrigin> origin = policy.origin;
  if (options.floors.has_value()) {
    layout.FloorTensors(*options.floors);  // Refuses floors that do not fit.
    auto other = std::make_shared<BehaviourOrigin>(*origin);
    other->floors = *options.floors;
    origin = std::move(other);
  }

  ChoiceInputs choices;
  if (masks.defined()) {
    masks = masks.contiguous();
    choices.masks = masks.const_data_ptr<bool>();
  }
  at::Tensor conditional = inputs.conditional_mask;
  if (conditional.defined()) {
    conditional = conditional.contiguous();
    choices.conditional = conditional.const_data_ptr<bool>();
  }
  DrawnNoise drawn;
  if (const auto* keys = std::get_if<CounterKeys>(&noise)) {
    choices.keys = keys->keys.data();
  } else {
    drawn = Draw(noise, layout, rows);
    if (drawn.noise.defined()) {
      drawn.noise = drawn.noise.contiguous();
      choices.exponential = drawn.noise.const_data_ptr<float>();
    }
    if (drawn.normal.defined()) {
      drawn.normal = drawn.normal.contiguous();
      choices.normal = drawn.normal.const_data_ptr<float>();
    }
  }
  const int64_t reported =
      options.driver_logits ? ReportedHead(spec, layout) : -1;
  choices.reported_head = reported;

  ActingResult& result = ThreadResult();
  const PlainStep plain(spec, step);
  packed.Act(plain.get(), choices, origin->floors, &result);

  const auto numbers = [&](const at::Tensor& x) {
    return BehaviourTensor::FromRecorded(x, origin);
  };
  const int64_t heads = layout.num_heads();
  ActionSample sample;
  sample.actions =
      Copied<int64_t>(result.choices.actions, {rows, heads}, at::kLong);
  if (layout.continuous_width() > 0) {
    sample.continuous_actions =
        Floats(result.choices.continuous, {rows, layout.continuous_width()});
  }
  sample.log_probs = numbers(Floats(result.choices.log_probs, {rows, heads}));
  sample.entropies = numbers(Floats(result.choices.entropies, {rows, heads}));
  sample.values = numbers(Floats(result.network.values, {rows}));
  if (reported >= 0) {
    sample.driver_logits =
        numbers(Floats(result.choices.reported, {rows, layout.size(reported)}));
  }
  if (options.q_values && !spec.q_head.empty()) {
    const int64_t head = spec.HeadIndex(spec.q_head);
    sample.q_values = numbers(
        QValue(*policy.weights, TrunkOf(result.network, rows, spec.hidden_dim),
               sample.actions.select(1, head)));
  }
  sample.next_state = {LayersFirst(result.network.h, rows, spec),
                       LayersFirst(result.network.c, rows, spec)};
  sample.policy_version = origin->policy_version;
  sample.spec_digest = origin->spec_digest;
  return sample;
}

BehaviourTensor GetValue(const ActingPolicy& policy, const PackedPolicy& packed,
                         const PolicyInputs& inputs) {
  const CheckedStep step = CheckStep(*policy.spec, inputs, "GetValue");
  const c10::InferenceMode inference;
  ActingResult& result = ThreadResult();
  const PlainStep plain(*policy.spec, step);
  packed.Value(plain.get(), &result);
  return BehaviourTensor::FromRecorded(
      Floats(result.network.values, {step.batch}), policy.origin);
}

}  // namespace esper::policy
