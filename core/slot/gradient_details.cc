#include "core/slot/gradient_details.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/isinf.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/slot/gradient_monitor.h"

namespace esper::slot {

std::optional<GradientDetails> InspectGradients(
    const std::vector<at::Tensor>& parameters) {
  constexpr double kSmallest = 1e-10;
  constexpr double kMaxNormRatio = 1000;
  constexpr double kMaxZeroFraction = 0.5;
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const at::NoGradGuard no_grad;
  GradientDetails details;
  details.min_norm = kInfinity;
  int64_t elements = 0;
  int64_t zeros = 0;
  for (const at::Tensor& parameter : parameters) {
    const at::Tensor& gradient = parameter.grad();
    if (!gradient.defined() || gradient.numel() == 0) continue;
    const at::Tensor values = gradient.detach().to(at::kDouble);
    // One copy to the host for each tensor; counts are exact below 2^53.
    const at::Tensor read = at::stack({at::linalg_vector_norm(values),
                                       values.eq(0).sum(at::kDouble),
                                       at::isnan(values).sum(at::kDouble),
                                       at::isinf(values).sum(at::kDouble)})
                                .cpu();
    const double* numbers = read.const_data_ptr<double>();
    const double norm = std::isnan(numbers[0]) ? kInfinity : numbers[0];
    details.min_norm = std::min(details.min_norm, norm);
    details.max_norm = std::max(details.max_norm, norm);
    zeros += static_cast<int64_t>(numbers[1]);
    details.nan_count += static_cast<int64_t>(numbers[2]);
    details.inf_count += static_cast<int64_t>(numbers[3]);
    elements += values.numel();
  }
  if (elements == 0) return std::nullopt;
  details.norm_ratio =
      std::isinf(details.max_norm)
          ? kInfinity
          : details.max_norm / std::max(details.min_norm, kSmallest);
  details.zero_fraction =
      static_cast<double>(zeros) / static_cast<double>(elements);
  details.healthy = details.nan_count == 0 && details.inf_count == 0 &&
                    details.norm_ratio < kMaxNormRatio &&
                    details.zero_fraction < kMaxZeroFraction &&
                    details.max_norm <= kExplodingThreshold;
  return details;
}

}  // namespace esper::slot
