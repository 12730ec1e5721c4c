#include "core/policy/sampler.h"

#include <utility>

#include "ATen/ops/empty.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/zeros.h"
#include "absl/strings/str_cat.h"
#include "c10/core/InferenceMode.h"
#include "core/error.h"
#include "core/policy/diagonal_gaussian.h"
#include "core/policy/input_checks.h"
#include "core/policy/masked_categorical.h"
#include "core/policy/network_forward.h"
#include "core/tensor/checks.h"

namespace esper::policy {
namespace {

// [B, X] or [B, 1, X] -> [B, 1, X].
at::Tensor AsOneStep(const at::Tensor& x, const std::string& name) {
  if (!x.defined()) return x;
  if (x.dim() == 2) return x.unsqueeze(1);
  if (x.dim() != 3 || x.size(1) != 1) {
    throw ShapeError(name, "[B, width] or [B, 1, width]: one step per row",
                     tensor::Describe(x));
  }
  return x;
}

// One step of every row, checked.
struct Step {
  at::Tensor observations;  // [B, 1, D].
  at::Tensor categorical;   // [B, 1, S].
  RecurrentState state;
  int64_t batch = 0;
};

Step CheckStep(const PolicySpec& spec, const PolicyInputs& inputs,
               const std::string& call) {
  CheckDetached(inputs.observations, call, "observations");
  CheckDetached(inputs.state.h, call, "h");
  CheckDetached(inputs.state.c, call, "c");
  Step step;
  if (!inputs.observations.defined()) {
    throw ShapeError("observations", "defined", "undefined");
  }
  step.observations = AsOneStep(inputs.observations, "observations");
  step.categorical = AsOneStep(inputs.categorical, "categorical");
  CheckObservationShapes(spec, step.observations, step.categorical);
  step.batch = step.observations.size(0);
  CheckStateShapes(spec, inputs.state, step.batch);
  step.state = inputs.state;
  return step;
}

at::Tensor CheckMasks(const HeadLayout& layout, const at::Tensor& masks,
                      int64_t batch) {
  if (!masks.defined()) return masks;
  const at::Tensor step = AsOneStep(masks, "action_masks");
  tensor::CheckTensor(step, "action_masks", at::kBool,
                      {batch, 1, layout.width()});
  return step.squeeze(1);
}

void CheckConditional(const HeadLayout& layout, const at::Tensor& mask,
                      const PolicyInputs& inputs, int64_t batch) {
  if (!mask.defined()) return;
  const int64_t k = layout.conditional_head();
  if (k < 0) {
    throw ShapeError("conditional_mask",
                     "undefined: no head has a conditional mask",
                     tensor::Describe(mask));
  }
  tensor::CheckTensor(mask, "conditional_mask", at::kBool,
                      {batch, layout.size(layout.driver(k)), layout.size(k)});
  tensor::CheckSameDevice(mask, "conditional_mask", inputs.observations,
                          "observations");
}

// Packed noise [B, A] and the rows that must not use it; both undefined if no
// row does. `normal`: that of Gaussian heads, [B, C], 0 in those rows.
struct Drawn {
  at::Tensor noise;
  at::Tensor deterministic;
  at::Tensor normal;
};

void CheckNoise(const Noise& noise, const HeadLayout& layout, int64_t batch) {
  if (const auto* given = std::get_if<GivenNoise>(&noise)) {
    tensor::CheckTensor(given->exponential, "noise", at::kFloat,
                        {batch, layout.width()});
    const at::Tensor& e = given->exponential;
    if (tensor::FirstNonFinite(e) >= 0 || e.le(0).any().item<bool>()) {
      throw NonFiniteError::Input("noise");
    }
    if (layout.gaussian_heads().empty()) return;
    tensor::CheckTensor(given->normal, "normal noise", at::kFloat,
                        {batch, layout.continuous_width()});
    tensor::CheckFinite(given->normal, "normal noise");
  } else if (const auto* counter = std::get_if<CounterKeys>(&noise)) {
    const int64_t keys = static_cast<int64_t>(counter->keys.size());
    if (keys != batch) {
      throw ShapeError("noise keys", absl::StrCat(batch, " keys"),
                       absl::StrCat(keys));
    }
  }
}

Drawn Draw(const Noise& noise, const HeadLayout& layout, int64_t batch) {
  Drawn drawn;
  if (const auto* given = std::get_if<GivenNoise>(&noise)) {
    drawn.noise = given->exponential;
    drawn.normal = given->normal;
  } else if (const auto* source = std::get_if<GeneratorNoise>(&noise)) {
    drawn.noise = at::ones({batch, layout.width()}, at::kFloat);
    drawn.normal = at::zeros({batch, layout.continuous_width()}, at::kFloat);
    for (const int64_t k : layout.sampling_order()) {
      if (layout.is_gaussian(k)) {
        drawn.normal
            .narrow(1, layout.continuous_offset(k), layout.dimensions(k))
            .copy_(at::empty({batch, layout.dimensions(k)}, at::kFloat)
                       .normal_(0, 1, source->generator));
      } else {
        drawn.noise.narrow(1, layout.offset(k), layout.size(k))
            .copy_(at::empty({batch, layout.size(k)}, at::kFloat)
                       .exponential_(1.0, source->generator));
      }
    }
  } else if (const auto* counter = std::get_if<CounterKeys>(&noise)) {
    drawn.noise = CounterNoise(counter->keys, layout);
    if (!layout.gaussian_heads().empty()) {
      drawn.normal = CounterNormals(counter->keys, layout);
    }
    at::Tensor deterministic = at::zeros({batch}, at::kBool);
    bool any = false;
    for (int64_t row = 0; row < batch; ++row) {
      if (!counter->keys[row].deterministic) continue;
      deterministic.mutable_data_ptr<bool>()[row] = true;
      any = true;
    }
    if (any) drawn.deterministic = deterministic;
  }
  return drawn;
}

TrunkOutput RunTrunk(const ActingPolicy& policy, const Step& step) {
  CheckInputValues(*policy.spec, step.observations, step.categorical,
                   step.state);
  return Trunk(*policy.weights, step.observations, step.categorical,
               step.state);
}

BehaviourTensor Numbers(const at::Tensor& x, const ActingPolicy& policy) {
  return BehaviourTensor::FromRecorded(x, policy.origin);
}

// The head whose logits are reported: what Q takes, or the first sampled; -1
// without categorical heads.
int64_t ReportedHead(const PolicySpec& spec, const HeadLayout& layout) {
  const int64_t q = spec.HeadIndex(spec.q_head);
  if (q >= 0) return q;
  for (const int64_t k : layout.sampling_order()) {
    if (!layout.is_gaussian(k)) return k;
  }
  return -1;
}

}  // namespace

ActionSample GetAction(const ActingPolicy& policy, const PolicyInputs& inputs,
                       const Noise& noise, const SampleOptions& options) {
  const PolicySpec& spec = *policy.spec;
  const HeadLayout& layout = *policy.layout;
  const Step step = CheckStep(spec, inputs, "GetAction");

  // Operations on tensors from here on are recorded nowhere.
  const c10::InferenceMode inference;
  const at::Tensor masks = CheckMasks(layout, inputs.action_masks, step.batch);
  CheckConditional(layout, inputs.conditional_mask, inputs, step.batch);
  CheckNoise(noise, layout, step.batch);
  FloorMode mode = policy.origin->floors.mode;
  std::vector<at::Tensor> floors = policy.floors;
  ActingPolicy origin = policy;
  if (options.floors.has_value()) {
    mode = options.floors->mode;
    floors = layout.FloorTensors(*options.floors);
    auto other = std::make_shared<BehaviourOrigin>(*policy.origin);
    other->floors = *options.floors;
    origin.origin = std::move(other);
  }

  const TrunkOutput trunk = RunTrunk(policy, step);
  const at::Tensor rows = trunk.trunk.squeeze(1);
  const HeadOutput heads = Heads(*policy.weights, rows);
  const Drawn drawn = Draw(noise, layout, step.batch);

  ActionSample sample;
  sample.actions = at::zeros({step.batch, layout.num_heads()}, at::kLong);
  std::vector<at::Tensor> log_probs;
  std::vector<at::Tensor> entropies;
  const at::Tensor base =
      masks.defined() ? masks
                      : at::ones({step.batch, layout.width()}, at::kBool);
  const int64_t reported = ReportedHead(spec, layout);
  for (size_t i = 0; i < layout.levels().size(); ++i) {
    const HeadLevel& level = layout.levels()[i];
    // Heads of the first level have no driver: their masks are the base masks.
    const at::Tensor effective =
        i == 0 ? base
               : layout.EffectiveMasks(masks, inputs.conditional_mask,
                                       sample.actions);
    const MaskedCategorical choices(layout.ToBlock(level, heads.logits),
                                    layout.MaskBlock(level, effective),
                                    level.fill, mode, floors[i]);
    CheckNotEmpty(spec, level, choices.allowed_count(), /*steps=*/0, {});
    if (i == 0) CheckLogits(spec, layout, heads.logits);
    const at::Tensor chosen =
        drawn.noise.defined()
            ? choices.Sample(layout.ToBlock(level, drawn.noise),
                             drawn.deterministic)
            : choices.ArgMax();
    sample.actions.index_copy_(1, level.head_index, chosen);
    log_probs.push_back(choices.LogProb(chosen));
    entropies.push_back(choices.Entropy());
    for (size_t j = 0; j < level.heads.size(); ++j) {
      if (!options.driver_logits || level.heads[j] != reported) continue;
      sample.driver_logits = Numbers(choices.masked_logits()
                                         .select(1, j)
                                         .narrow(1, 0, layout.size(reported))
                                         .contiguous(),
                                     origin);
    }
  }
  if (!layout.gaussian_heads().empty()) {
    const at::Tensor& log_std = policy.weights->log_std;
    CheckGaussian(spec, layout, heads.means, log_std);
    const DiagonalGaussian values(layout, heads.means, log_std,
                                  layout.Relevance(sample.actions));
    sample.continuous_actions =
        drawn.normal.defined() ? values.Sample(drawn.normal) : values.Mode();
    log_probs.push_back(values.LogProb(sample.continuous_actions));
    entropies.push_back(values.Entropy());
  }
  sample.log_probs = Numbers(layout.Gather(log_probs), origin);
  sample.entropies = Numbers(layout.Gather(entropies), origin);
  sample.values = Numbers(heads.values, origin);
  if (options.q_values && !spec.q_head.empty()) {
    sample.q_values =
        Numbers(QValue(*policy.weights, rows,
                       sample.actions.select(1, spec.HeadIndex(spec.q_head))),
                origin);
  }
  sample.next_state = trunk.state;
  sample.policy_version = origin.origin->policy_version;
  sample.spec_digest = origin.origin->spec_digest;
  for (const at::Tensor& x :
       {sample.log_probs.unsafe_tensor(), sample.entropies.unsafe_tensor(),
        sample.values.unsafe_tensor(), sample.next_state.h,
        sample.next_state.c}) {
    TORCH_INTERNAL_ASSERT(x.is_inference(), "a result escaped inference mode");
  }
  return sample;
}

BehaviourTensor GetValue(const ActingPolicy& policy,
                         const PolicyInputs& inputs) {
  const Step step = CheckStep(*policy.spec, inputs, "GetValue");
  const c10::InferenceMode inference;
  const TrunkOutput trunk = RunTrunk(policy, step);
  return Numbers(Value(*policy.weights, trunk.trunk.squeeze(1)), policy);
}

BehaviourTensor PredictContributions(const ActingPolicy& policy,
                                     const PolicyInputs& inputs) {
  const Step step = CheckStep(*policy.spec, inputs, "PredictContributions");
  if (policy.spec->contribution_outputs == 0) {
    ErrorDetail detail;
    detail.reason = "MALFORMED_REQUEST";
    throw InvalidArgumentError(detail,
                               "This policy has no contribution predictor.");
  }
  const c10::InferenceMode inference;
  const TrunkOutput trunk = RunTrunk(policy, step);
  return Numbers(Contributions(*policy.weights, trunk.trunk.squeeze(1),
                               /*stop_gradient=*/true),
                 policy);
}

}  // namespace esper::policy
