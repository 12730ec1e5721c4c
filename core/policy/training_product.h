#ifndef ESPER_CORE_POLICY_TRAINING_PRODUCT_H_
#define ESPER_CORE_POLICY_TRAINING_PRODUCT_H_

#include "ATen/core/Tensor.h"
#include "core/policy/training_precision.h"

namespace esper::policy {

// x, float32, as an operand of `Product`: itself; or rounded to bfloat16. The
// rounded numbers stay float32, unless the processor multiplies bfloat16
// (`narrow`, by default as it is).
at::Tensor Operand(const at::Tensor& x, TrainingPrecision precision);
at::Tensor Operand(const at::Tensor& x, TrainingPrecision precision,
                   bool narrow);

// a b, float32 [m, n], of operands [m, k] and [k, n] made alike. Where they are
// bfloat16 the sums are float32 and the result is rounded once more.
at::Tensor Product(const at::Tensor& a, const at::Tensor& b);

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_TRAINING_PRODUCT_H_
