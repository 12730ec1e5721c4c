#include "core/policy/packed_linear.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "ATen/ops/empty.h"
#include "ATen/ops/from_blob.h"
#include "ATen/ops/zeros.h"
#include "c10/util/Exception.h"
#include "core/policy/onednn_linear.h"

namespace esper::policy {
namespace {

constexpr int64_t kAlignment = 64;
// Rows that oneDNN's layout is chosen for.
constexpr int64_t kTypicalRows = 64;

int64_t RoundUp(int64_t x, int64_t multiple) {
  return (x + multiple - 1) / multiple * multiple;
}

// The smallest power of two that holds `rows`.
int64_t AllowedRows(int64_t rows) {
  int64_t allowed = 1;
  while (allowed < rows) allowed *= 2;
  return allowed;
}

// Upper half of a number that bfloat16 holds.
uint32_t Bf16Bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits >> 16;
}

// Undefined where oneDNN cannot run this.
at::Tensor TryReorder(const at::Tensor& weight, const at::Tensor& bias) {
  try {
    const at::Tensor reordered = ReorderLinearWeight(weight, kTypicalRows);
    OneDnnLinear(at::zeros({1, weight.size(1)}, weight.options()), reordered,
                 bias, /*relu=*/true);
    return reordered;
  } catch (const c10::Error&) {
    return {};
  }
}

}  // namespace

AlignedBuffer::AlignedBuffer(int64_t bytes)
    : data_(std::aligned_alloc(kAlignment, RoundUp(bytes, kAlignment))) {
  if (data_ == nullptr) throw std::bad_alloc();
  std::memset(data_.get(), 0, bytes);
}

void AlignedBuffer::Free::operator()(void* p) const { std::free(p); }

PackedLinear::PackedLinear(const at::Tensor& weight, const at::Tensor& bias,
                           InferencePrecision precision,
                           const PackedKernels& kernels)
    : kernels_(&kernels),
      precision_(precision),
      inputs_(weight.size(1)),
      outputs_(weight.size(0)) {
  const at::Tensor last =
      bias.defined() ? bias.contiguous() : at::zeros({outputs_}, at::kFloat);
  const bool bf16 = precision == InferencePrecision::kBf16;
  if (bf16 && HasBf16Products()) {
    reordered_bias_ = last.to(at::kBFloat16);
    reordered_ =
        TryReorder(weight.to(at::kBFloat16).contiguous(), reordered_bias_);
    if (reordered_.defined()) return;
  }
  bias_ = AlignedBuffer(padded_outputs() * sizeof(float));
  std::memcpy(bias_.data(), last.const_data_ptr<float>(),
              outputs_ * sizeof(float));
  const float* w = weight.const_data_ptr<float>();
  const int64_t next_output = weight.stride(0);
  const int64_t next_input = weight.stride(1);
  if (!bf16) {
    panels_ = AlignedBuffer(padded_outputs() * inputs_ * sizeof(float));
    float* to = static_cast<float*>(panels_.data());
    for (int64_t first = 0; first < outputs_; first += kPanelWidth) {
      const int64_t width = std::min(kPanelWidth, outputs_ - first);
      const float* from = w + first * next_output;
      for (int64_t k = 0; k < inputs_; ++k) {
        for (int64_t out = 0; out < width; ++out) {
          to[out] = from[out * next_output + k * next_input];
        }
        to += kPanelWidth;
      }
    }
    return;
  }
  const int64_t pairs = (inputs_ + 1) / 2;
  panels_ = AlignedBuffer(padded_outputs() * pairs * sizeof(uint32_t));
  uint32_t* to = static_cast<uint32_t*>(panels_.data());
  float numbers[kPanelWidth] = {};
  for (int64_t first = 0; first < outputs_; first += kPanelWidth) {
    const int64_t width = std::min(kPanelWidth, outputs_ - first);
    const float* from = w + first * next_output;
    for (int64_t k = 0; k < inputs_; ++k) {
      for (int64_t out = 0; out < width; ++out) {
        numbers[out] = from[out * next_output + k * next_input];
      }
      kernels.round_bf16(numbers, width, numbers);
      for (int64_t out = 0; out < width; ++out) {
        to[k / 2 * kPanelWidth + out] |= Bf16Bits(numbers[out]) << (k % 2 * 16);
      }
    }
    to += pairs * kPanelWidth;
  }
}

int64_t PackedLinear::ScratchSize(int64_t rows) const {
  const bool rounds =
      precision_ == InferencePrecision::kBf16 && !reordered_.defined();
  return rounds ? rows * inputs_ : 0;
}

void PackedLinear::Apply(const float* x, int64_t ldx, int64_t rows, float* y,
                         int64_t ldy, bool relu, float* scratch) const {
  if (reordered_.defined()) return ApplyOneDnn(x, ldx, rows, y, ldy, relu);
  LinearCall call;
  call.x = x;
  call.ldx = ldx;
  call.rows = rows;
  call.inputs = inputs_;
  call.panels = panels_.data();
  call.bias = static_cast<const float*>(bias_.data());
  call.num_panels = padded_outputs() / kPanelWidth;
  call.y = y;
  call.ldy = ldy;
  call.relu = relu;
  if (precision_ == InferencePrecision::kFp32) return kernels_->linear(call);
  for (int64_t row = 0; row < rows; ++row) {
    kernels_->round_bf16(x + row * ldx, inputs_, scratch + row * inputs_);
  }
  call.x = scratch;
  call.ldx = inputs_;
  kernels_->linear_bf16(call);
}

void PackedLinear::ApplyOneDnn(const float* x, int64_t ldx, int64_t rows,
                               float* y, int64_t ldy, bool relu) const {
  const int64_t padded = AllowedRows(rows);
  at::Tensor input = at::empty({padded, inputs_}, at::kBFloat16);
  // `from_blob` wants a pointer to write to; nothing writes.
  input.narrow(0, 0, rows)
      .copy_(at::from_blob(const_cast<float*>(x), {rows, inputs_}, {ldx, 1},
                           at::kFloat));
  if (padded > rows) input.narrow(0, rows, padded - rows).zero_();
  at::Tensor output = at::from_blob(y, {rows, outputs_}, {ldy, 1}, at::kFloat);
  output.copy_(OneDnnLinear(input, reordered_, reordered_bias_, relu)
                   .narrow(0, 0, rows));
}

}  // namespace esper::policy
