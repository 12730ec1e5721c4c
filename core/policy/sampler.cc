#include "core/policy/sampler.h"

#include <utility>

#include "ATen/ops/ones.h"
#include "ATen/ops/zeros.h"
#include "c10/core/InferenceMode.h"
#include "core/error.h"
#include "core/policy/diagonal_gaussian.h"
#include "core/policy/input_checks.h"
#include "core/policy/masked_categorical.h"
#include "core/policy/network_forward.h"
#include "core/policy/sampler_inputs.h"
#include "core/tensor/checks.h"

namespace esper::policy {
namespace {

TrunkOutput RunTrunk(const ActingPolicy& policy, const CheckedStep& step) {
  CheckInputValues(*policy.spec, step.observations, step.categorical,
                   step.state);
  return Trunk(*policy.weights, step.observations, step.categorical,
               step.state);
}

BehaviourTensor Numbers(const at::Tensor& x, const ActingPolicy& policy) {
  return BehaviourTensor::FromRecorded(x, policy.origin);
}

}  // namespace

ActionSample GetAction(const ActingPolicy& policy, const PolicyInputs& inputs,
                       const Noise& noise, const SampleOptions& options) {
  const PolicySpec& spec = *policy.spec;
  const HeadLayout& layout = *policy.layout;
  const CheckedStep step = CheckStep(spec, inputs, "GetAction");

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
  const DrawnNoise drawn = Draw(noise, layout, step.batch);

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
  const CheckedStep step = CheckStep(*policy.spec, inputs, "GetValue");
  const c10::InferenceMode inference;
  const TrunkOutput trunk = RunTrunk(policy, step);
  return Numbers(Value(*policy.weights, trunk.trunk.squeeze(1)), policy);
}

BehaviourTensor PredictContributions(const ActingPolicy& policy,
                                     const PolicyInputs& inputs) {
  const CheckedStep step =
      CheckStep(*policy.spec, inputs, "PredictContributions");
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
