#ifndef ESPER_CORE_POLICY_PACKED_KERNELS_H_
#define ESPER_CORE_POLICY_PACKED_KERNELS_H_

#include <cstdint>

// The inner loops of acting, compiled once per instruction set. Plain pointers;
// matrices are row-major with a stride in elements.
//
// What a row gives depends on that row and the weights alone, never on how many
// rows come with it: every output of a product is one chain of multiply-adds
// over k = 0, 1, ..., whatever the blocking.
namespace esper::policy {

// Outputs of a product are packed in panels of this many, padded with zeros.
inline constexpr int64_t kPanelWidth = 16;

// y = x W^T + b, or max(0, that).
struct LinearCall {
  const float* x = nullptr;  // [rows, inputs], stride ldx.
  int64_t ldx = 0;
  int64_t rows = 0;
  int64_t inputs = 0;
  // Panels one after another: float32 [inputs, kPanelWidth] each, or, in
  // bfloat16, words [(inputs + 1) / 2, kPanelWidth] with the even input in the
  // low half.
  const void* panels = nullptr;
  const float* bias = nullptr;  // [panels * kPanelWidth].
  int64_t num_panels = 0;
  float* y = nullptr;  // [rows, num_panels * kPanelWidth], stride ldy.
  int64_t ldy = 0;
  bool relu = false;
};

// y = LayerNorm(x) * weight + bias, of each row; then, in this order, max(0, y)
// and y += residual.
struct LayerNormCall {
  const float* x = nullptr;  // [rows, width], stride ldx.
  int64_t ldx = 0;
  int64_t rows = 0;
  int64_t width = 0;
  const float* weight = nullptr;  // [width].
  const float* bias = nullptr;
  float epsilon = 0;
  bool relu = false;
  const float* residual = nullptr;  // [rows, width], stride ldr; may be null.
  int64_t ldr = 0;
  float* y = nullptr;  // [rows, width], stride ldy; may be x.
  int64_t ldy = 0;
};

// One row of an LSTM cell, gates before their nonlinearities:
//   c' = sigmoid(f) c + sigmoid(i) tanh(g);  h' = sigmoid(o) tanh(c').
struct LstmCellCall {
  const float* gates = nullptr;  // [4 * width]: i, f, g, o.
  const float* c = nullptr;      // [width].
  int64_t width = 0;
  float* next_h = nullptr;  // [width].
  float* next_c = nullptr;  // [width].
};

// The same cell in training: what the backward pass needs is kept.
struct LstmForwardCall {
  const float* input = nullptr;    // [4 * width]: x W_ih^T and the biases.
  const float* product = nullptr;  // [4 * width]: h W_hh^T.
  const float* c = nullptr;        // [width].
  int64_t width = 0;
  float* gates = nullptr;   // [4 * width]: after their nonlinearities.
  float* next_h = nullptr;  // [width].
  float* next_c = nullptr;  // [width]; may be c.
};

// One row of the cell backwards. dh and dc: gradients of h' and c'.
struct LstmBackwardCall {
  const float* gates = nullptr;   // [4 * width]: after their nonlinearities.
  const float* c = nullptr;       // [width]: before the step.
  const float* next_c = nullptr;  // [width].
  const float* dh = nullptr;      // [width].
  int64_t width = 0;
  float* dc = nullptr;      // [width]: of c' before, of c after the call.
  float* dgates = nullptr;  // [4 * width]: of the gates before them.
};

struct PackedKernels {
  const char* name;  // "avx512", "avx2", "generic".
  void (*linear)(const LinearCall& call);
  // With bfloat16 weights; x holds numbers that are exact in bfloat16.
  // Products and sums in float32.
  void (*linear_bf16)(const LinearCall& call);
  void (*layer_norm)(const LayerNormCall& call);
  void (*lstm_cell)(const LstmCellCall& call);
  void (*lstm_forward)(const LstmForwardCall& call);
  void (*lstm_backward)(const LstmBackwardCall& call);
  // Rounds to the nearest number that bfloat16 holds, ties to even.
  void (*round_bf16)(const float* x, int64_t count, float* y);
  bool (*all_finite)(const float* x, int64_t count);
};

// The fastest that this processor runs.
const PackedKernels& BestKernels();
// All that this processor runs, the fastest first; for tests.
const PackedKernels* const* AllKernels(int* count);

namespace internal {
extern const PackedKernels kGenericKernels;
extern const PackedKernels kAvx2Kernels;    // x86-64 only, as is the next.
extern const PackedKernels kAvx512Kernels;  // Needs AVX512 F.
}  // namespace internal

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_PACKED_KERNELS_H_
