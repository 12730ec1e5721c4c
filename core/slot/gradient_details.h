#ifndef ESPER_CORE_SLOT_GRADIENT_DETAILS_H_
#define ESPER_CORE_SLOT_GRADIENT_DETAILS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace esper::slot {

// A closer look at the gradient of one backward pass than GradientReading's,
// for a person who asks why a seed does not learn.
struct GradientDetails {
  double min_norm = 0;  // L2, over tensors; NaN counts as infinite.
  double max_norm = 0;
  double norm_ratio = 0;     // max_norm / max(min_norm, 1e-10).
  double zero_fraction = 0;  // Of all elements, in [0, 1].
  int64_t nan_count = 0;     // Elements.
  int64_t inf_count = 0;
  // No NaN or infinity, ratio below 1000, under half of the elements zero, and
  // no norm above kExplodingThreshold (core/slot/gradient_monitor.h).
  bool healthy = false;
};

// Looks at the gradients that exist, float64 throughout. Absent if there are
// none: nothing was measured. Waits for the device; not for every batch.
std::optional<GradientDetails> InspectGradients(
    const std::vector<at::Tensor>& parameters);

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_GRADIENT_DETAILS_H_
