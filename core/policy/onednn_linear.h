#ifndef ESPER_CORE_POLICY_ONEDNN_LINEAR_H_
#define ESPER_CORE_POLICY_ONEDNN_LINEAR_H_

#include <cstdint>

#include "ATen/core/Tensor.h"

// oneDNN's linear layer with weights in its own layout, through LibTorch's
// dispatcher: the operators have no C++ headers in the wheel.
namespace esper::policy {

// weight: [out, in], float32 or bfloat16; returns an opaque tensor in the
// layout for about `rows` rows. Throws c10::Error if oneDNN cannot run this
// dtype on this processor.
at::Tensor ReorderLinearWeight(const at::Tensor& weight, int64_t rows);

// x [rows, in] of the weight's dtype -> [rows, out]; max(0, y) if `relu`.
at::Tensor OneDnnLinear(const at::Tensor& x, const at::Tensor& reordered,
                        const at::Tensor& bias, bool relu);

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_ONEDNN_LINEAR_H_
