#include "core/policy/training_product.h"

#include "ATen/ops/empty_like.h"
#include "ATen/ops/mm.h"
#include "core/policy/inference_precision.h"
#include "core/policy/packed_kernels.h"

namespace esper::policy {

at::Tensor Operand(const at::Tensor& x, TrainingPrecision precision) {
  static const bool narrow = HasBf16Products();
  return Operand(x, precision, narrow);
}

at::Tensor Operand(const at::Tensor& x, TrainingPrecision precision,
                   bool narrow) {
  if (precision == TrainingPrecision::kFp32) return x;
  if (narrow) return x.to(at::kBFloat16);
  const at::Tensor exact = x.contiguous();
  at::Tensor rounded = at::empty_like(exact);
  BestKernels().round_bf16(exact.const_data_ptr<float>(), exact.numel(),
                           rounded.mutable_data_ptr<float>());
  return rounded;
}

at::Tensor Product(const at::Tensor& a, const at::Tensor& b) {
  return at::mm(a, b).to(at::kFloat);
}

}  // namespace esper::policy
