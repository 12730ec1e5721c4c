#ifndef ESPER_TESTS_BENCH_TRAINING_LOSS_H_
#define ESPER_TESTS_BENCH_TRAINING_LOSS_H_

#include <cstdint>

#include "ATen/core/Tensor.h"
#include "core/ppo/open_evaluation.h"

namespace esper::bench {

// What the loss of the training benchmark compares an evaluation with.
struct LossTargets {
  at::Tensor old_log_probs;  // float32 [B, T, K].
  at::Tensor advantages;     // float32 [B, T].
  at::Tensor returns;        // float32 [B, T].
  at::Tensor contributions;  // float32 [B, T, S].
};

LossTargets RandomTargets(const ppo::EvaluationNumbers& numbers, uint64_t seed);

struct ClientLoss {
  double loss = 0;
  ppo::Cotangents cotangents;
};

// A client's own PPO loss and what it sends back for it: clipped policy loss of
// every head, entropy bonus, squared errors of V, Q and contributions. The
// twin in Python (training_twin.py) has the same one.
ClientLoss ComputeClientLoss(const ppo::EvaluationNumbers& numbers,
                             const LossTargets& targets);

}  // namespace esper::bench
#endif  // ESPER_TESTS_BENCH_TRAINING_LOSS_H_
