#include "core/policy/input_checks.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "core/tensor/checks.h"

namespace esper::policy {
namespace {

std::string Statistics(const at::Tensor& logits) {
  const at::Tensor host = logits.to(at::kCPU).contiguous();
  const float* data = host.const_data_ptr<float>();
  float low = std::numeric_limits<float>::infinity();
  float high = -low;
  int64_t nans = 0;
  int64_t infinities = 0;
  for (int64_t i = 0; i < host.numel(); ++i) {
    if (std::isnan(data[i])) {
      ++nans;
      continue;
    }
    infinities += std::isinf(data[i]);
    low = std::min(low, data[i]);
    high = std::max(high, data[i]);
  }
  return absl::StrCat("min ", low, ", max ", high, ", ", nans, " NaN, ",
                      infinities, " infinite");
}

}  // namespace

void CheckObservationShapes(const PolicySpec& spec,
                            const at::Tensor& observations,
                            const at::Tensor& categorical) {
  tensor::CheckTensor(
      observations, "observations", at::kFloat,
      {tensor::kAnySize, tensor::kAnySize, spec.observation_width()});
  const int64_t batch = observations.size(0);
  const int64_t steps = observations.size(1);
  if (batch == 0 || steps == 0) {
    throw ShapeError("observations", "at least one row and step",
                     tensor::Describe(observations));
  }
  if (spec.categorical.has_value()) {
    tensor::CheckTensor(categorical, "categorical", at::kLong,
                        {batch, steps, spec.categorical_count()});
    tensor::CheckSameDevice(categorical, "categorical", observations,
                            "observations");
  } else if (categorical.defined()) {
    throw ShapeError("categorical", "undefined: the policy has no such input",
                     tensor::Describe(categorical));
  }
}

void CheckStateShapes(const PolicySpec& spec, const RecurrentState& state,
                      int64_t batch) {
  if (!state.h.defined() && !state.c.defined()) return;
  tensor::CheckTensor(state.h, "h", at::kFloat,
                      {spec.lstm_layers, batch, spec.hidden_dim});
  tensor::CheckTensor(state.c, "c", at::kFloat,
                      {spec.lstm_layers, batch, spec.hidden_dim});
}

void CheckInputValues(const PolicySpec& spec, const at::Tensor& observations,
                      const at::Tensor& categorical,
                      const RecurrentState& state) {
  tensor::CheckFinite(observations, "observations", /*row_dim=*/0,
                      /*step_dim=*/1);
  if (state.defined()) {
    tensor::CheckFinite(state.h, "h", /*row_dim=*/1);
    tensor::CheckFinite(state.c, "c", /*row_dim=*/1);
  }
  if (!spec.categorical.has_value()) return;
  const int64_t bad =
      tensor::FirstOutside(categorical, -1, spec.categorical->cardinality - 1);
  if (bad < 0) return;
  ErrorDetail detail;
  detail.reason = "BAD_BLUEPRINT_INDEX";
  detail.tensor = "categorical";
  detail.field = spec.categorical->name;
  detail.row = tensor::IndexAlong(categorical.sizes(), bad, 0);
  detail.step = tensor::IndexAlong(categorical.sizes(), bad, 1);
  detail.hint = "Send -1 for an empty position.";
  const int64_t value = categorical.reshape({-1})[bad].item<int64_t>();
  throw InvalidArgumentError(
      detail,
      absl::StrCat("The ", spec.categorical->name, " index ", value, " in row ",
                   detail.row, " at step ", detail.step, " is not in [-1, ",
                   spec.categorical->cardinality - 1, "]."));
}

void CheckNotEmpty(const PolicySpec& spec, const HeadLevel& level,
                   const at::Tensor& counts, int64_t steps,
                   const at::Tensor& valid) {
  const at::Tensor host = counts.to(at::kCPU).contiguous();
  const int64_t* count = host.const_data_ptr<int64_t>();
  const int64_t heads = static_cast<int64_t>(level.heads.size());
  for (int64_t i = 0; i < host.numel(); ++i) {
    if (count[i] > 0) continue;
    const int64_t n = i / heads;
    if (valid.defined() && !valid[n].item<bool>()) continue;
    const std::string& head = spec.heads[level.heads[i % heads]].name;
    if (steps == 0) throw EmptyMaskError(head, n);
    throw EmptyMaskError(head, n / steps, n % steps);
  }
}

void CheckLogits(const PolicySpec& spec, const HeadLayout& layout,
                 const at::Tensor& logits) {
  if (tensor::FirstNonFinite(logits) < 0) return;
  for (int64_t k = 0; k < layout.num_heads(); ++k) {
    const at::Tensor head = logits.narrow(1, layout.offset(k), layout.size(k));
    if (tensor::FirstNonFinite(head) < 0) continue;
    throw NonFiniteError::Logits(spec.heads[k].name, Statistics(head));
  }
}

void CheckGaussian(const PolicySpec& spec, const HeadLayout& layout,
                   const at::Tensor& means, const at::Tensor& log_std) {
  if (tensor::FirstNonFinite(means) < 0 &&
      tensor::FirstNonFinite(log_std) < 0) {
    return;
  }
  for (const int64_t k : layout.gaussian_heads()) {
    const int64_t offset = layout.continuous_offset(k);
    const int64_t size = layout.dimensions(k);
    for (const at::Tensor& x :
         {means.narrow(1, offset, size), log_std.narrow(0, offset, size)}) {
      if (tensor::FirstNonFinite(x) < 0) continue;
      throw NonFiniteError::Logits(spec.heads[k].name, Statistics(x));
    }
  }
}

}  // namespace esper::policy
