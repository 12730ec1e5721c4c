#include "core/policy/policy_forward.h"

#include <string>

#include "ATen/ops/ones.h"
#include "ATen/ops/where.h"
#include "c10/core/InferenceMode.h"
#include "core/error.h"
#include "core/policy/head_layout.h"
#include "core/policy/input_checks.h"
#include "core/policy/masked_categorical.h"
#include "core/policy/network_forward.h"
#include "core/tensor/checks.h"

namespace esper::policy {
namespace {

constexpr char kCall[] = "Forward";

at::Tensor AsSequence(const at::Tensor& x) {
  return x.defined() && x.dim() == 2 ? x.unsqueeze(1) : x;
}

// bool [B * T, A].
at::Tensor CheckMasks(const ActingPolicy& policy, const at::Tensor& given,
                      int64_t batch, int64_t steps) {
  const int64_t width = policy.layout->width();
  if (!given.defined() && policy.spec->mask_optional) {
    return at::ones({batch * steps, width}, at::kBool);
  }
  const at::Tensor masks = AsSequence(given);
  tensor::CheckTensor(masks, "action_masks", at::kBool, {batch, steps, width});
  return masks.reshape({batch * steps, width});
}

}  // namespace

ForwardOutput Forward(const ActingPolicy& policy, const ForwardInputs& inputs) {
  const PolicySpec& spec = *policy.spec;
  const HeadLayout& layout = *policy.layout;
  CheckDetached(inputs.observations, kCall, "observations");
  CheckDetached(inputs.state.h, kCall, "h");
  CheckDetached(inputs.state.c, kCall, "c");
  const at::Tensor observations = AsSequence(inputs.observations);
  const at::Tensor categorical = AsSequence(inputs.categorical);
  CheckObservationShapes(spec, observations, categorical);
  const int64_t batch = observations.size(0);
  const int64_t steps = observations.size(1);
  CheckStateShapes(spec, inputs.state, batch);

  const c10::InferenceMode inference;
  const at::Tensor masks =
      CheckMasks(policy, inputs.action_masks, batch, steps);
  CheckInputValues(spec, observations, categorical, inputs.state);
  if (!layout.levels().empty()) {
    const HeadLevel& first = layout.levels()[0];
    CheckNotEmpty(spec, first, layout.MaskBlock(first, masks).sum(-1), steps,
                  {});
  }

  const TrunkOutput trunk =
      Trunk(*policy.weights, observations, categorical, inputs.state);
  const at::Tensor rows = trunk.trunk.reshape({batch * steps, spec.hidden_dim});
  const HeadOutput heads = Heads(*policy.weights, rows);
  CheckLogits(spec, layout, heads.logits);

  const auto numbers = [&](const at::Tensor& x, at::IntArrayRef sizes) {
    return BehaviourTensor::FromRecorded(x.reshape(sizes), policy.origin);
  };
  ForwardOutput output;
  output.logits = numbers(at::where(masks, heads.logits, kMaskedLogit),
                          {batch, steps, layout.width()});
  if (heads.means.defined()) {
    CheckGaussian(spec, layout, heads.means, policy.weights->log_std);
    output.means =
        numbers(heads.means, {batch, steps, layout.continuous_width()});
  }
  output.values = numbers(heads.values, {batch, steps});
  if (!spec.q_head.empty()) {
    output.q_values =
        numbers(QAllChoices(*policy.weights, rows), {batch, steps, -1});
  }
  output.state = trunk.state;
  return output;
}

}  // namespace esper::policy
