#ifndef ESPER_CORE_POLICY_LSTM_SEQUENCE_H_
#define ESPER_CORE_POLICY_LSTM_SEQUENCE_H_

#include "ATen/core/Tensor.h"
#include "core/policy/training_precision.h"

namespace esper::policy {

struct LstmOutput {
  at::Tensor y;  // float32 [B, T, H]: raw output of each step.
  at::Tensor h;  // float32 [B, H]: after the last step.
  at::Tensor c;  // float32 [B, H].
};

// One LSTM layer over whole sequences, on the host. With gates i, f, g, o in
// that order:
//   c' = sigmoid(f) c + sigmoid(i) tanh(g),  h' = sigmoid(o) tanh(c').
//   gates_x:   float32 [B, T, 4H]: input part of the gates, all biases added.
//   weight_hh: float32 [4H, H].
//   h0, c0:    float32 [B, H].
//   reset:     bool [B, T]: h and c of the row become 0 before that step, and
//              no gradient crosses; undefined: never.
//
// Differentiable once in everything but `reset`. The backward pass is written
// out: the gradient of the weights is one product over all steps rather than
// one per step. Over several steps the recurrent weights are packed once, so
// that each step streams them in order. Without anything to differentiate no
// intermediate is kept; the arithmetic, and so the result, is the same.
LstmOutput LstmSequence(const at::Tensor& gates_x, const at::Tensor& weight_hh,
                        const at::Tensor& h0, const at::Tensor& c0,
                        const at::Tensor& reset = {},
                        TrainingPrecision precision = TrainingPrecision::kFp32);

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_LSTM_SEQUENCE_H_
