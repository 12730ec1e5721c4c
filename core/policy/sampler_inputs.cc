#include "core/policy/sampler_inputs.h"

#include "ATen/ops/empty.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/zeros.h"
#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "core/policy/input_checks.h"
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

}  // namespace

CheckedStep CheckStep(const PolicySpec& spec, const PolicyInputs& inputs,
                      const std::string& call) {
  CheckDetached(inputs.observations, call, "observations");
  CheckDetached(inputs.state.h, call, "h");
  CheckDetached(inputs.state.c, call, "c");
  CheckedStep step;
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

DrawnNoise Draw(const Noise& noise, const HeadLayout& layout, int64_t batch) {
  DrawnNoise drawn;
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

int64_t ReportedHead(const PolicySpec& spec, const HeadLayout& layout) {
  const int64_t q = spec.HeadIndex(spec.q_head);
  if (q >= 0) return q;
  for (const int64_t k : layout.sampling_order()) {
    if (!layout.is_gaussian(k)) return k;
  }
  return -1;
}

}  // namespace esper::policy
