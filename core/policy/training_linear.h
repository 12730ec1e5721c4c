#ifndef ESPER_CORE_POLICY_TRAINING_LINEAR_H_
#define ESPER_CORE_POLICY_TRAINING_LINEAR_H_

#include <vector>

#include "ATen/core/Tensor.h"
#include "core/policy/training_precision.h"

namespace esper::policy {

// Several linear layers that read one input, as one node of the graph.
struct LinearFan {
  std::vector<at::Tensor> weights;  // float32 [out, in] each.
  std::vector<at::Tensor> biases;   // float32 [out] each.
  std::vector<bool> relu;           // Whether max(0, y) follows.
};

// x: float32 [N, in] -> one [N, out] per layer. Differentiable once. A layer
// that no loss reaches gets no gradient, not one of zeros, and costs nothing on
// the way back.
std::vector<at::Tensor> ApplyFan(const LinearFan& fan, const at::Tensor& x,
                                 TrainingPrecision precision);

// x: float32 [..., in] -> [..., out] by one layer. Differentiable once.
at::Tensor RoundedLinear(const at::Tensor& x, const at::Tensor& weight,
                         const at::Tensor& bias, TrainingPrecision precision);

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_TRAINING_LINEAR_H_
