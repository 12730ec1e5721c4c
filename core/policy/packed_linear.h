#ifndef ESPER_CORE_POLICY_PACKED_LINEAR_H_
#define ESPER_CORE_POLICY_PACKED_LINEAR_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "ATen/core/Tensor.h"
#include "core/policy/inference_precision.h"
#include "core/policy/packed_kernels.h"

namespace esper::policy {

// Bytes on a cache line's boundary.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(int64_t bytes);  // Zeroed.

  void* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(void* p) const;
  };
  std::unique_ptr<void, Free> data_;
};

// A linear layer laid out for the product that computes it. Immutable; safe
// from any thread.
//
// In bf16, layers for which the processor has instructions go to oneDNN: rows
// are padded with zeros to the next power of two, as oneDNN prepares code for
// every number of rows it meets, and may choose other blocking for it. All
// others run on the kernels of packed_kernels.h, where no size is special and
// rows do not depend on each other.
class PackedLinear {
 public:
  PackedLinear() = default;  // Undefined.
  // weight: float32 [out, in], any strides; bias: float32 [out], undefined:
  // zeros; host. Copies.
  PackedLinear(const at::Tensor& weight, const at::Tensor& bias,
               InferencePrecision precision,
               const PackedKernels& kernels = BestKernels());

  bool defined() const { return inputs_ > 0; }
  int64_t inputs() const { return inputs_; }
  int64_t outputs() const { return outputs_; }
  // Outputs rounded up to whole panels: how much of a row of y is written.
  int64_t padded_outputs() const {
    return (outputs_ + kPanelWidth - 1) / kPanelWidth * kPanelWidth;
  }
  // Whether the first product of every size is slow, as oneDNN prepares it.
  bool prepares_sizes() const { return reordered_.defined(); }
  // Floats of scratch space that `Apply` takes for `rows`.
  int64_t ScratchSize(int64_t rows) const;

  // y = x W^T + b, or max(0, that).
  //   x: [rows, inputs], stride ldx.  y: [rows, padded_outputs], stride ldy.
  void Apply(const float* x, int64_t ldx, int64_t rows, float* y, int64_t ldy,
             bool relu, float* scratch) const;

 private:
  void ApplyOneDnn(const float* x, int64_t ldx, int64_t rows, float* y,
                   int64_t ldy, bool relu) const;

  const PackedKernels* kernels_ = nullptr;
  InferencePrecision precision_ = InferencePrecision::kFp32;
  int64_t inputs_ = 0;
  int64_t outputs_ = 0;
  AlignedBuffer panels_;
  AlignedBuffer bias_;
  // bfloat16, as oneDNN wants it; undefined where the kernels compute.
  at::Tensor reordered_;
  at::Tensor reordered_bias_;
};

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_PACKED_LINEAR_H_
