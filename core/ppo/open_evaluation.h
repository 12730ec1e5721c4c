#ifndef ESPER_CORE_PPO_OPEN_EVALUATION_H_
#define ESPER_CORE_PPO_OPEN_EVALUATION_H_

#include "ATen/core/Tensor.h"

namespace esper::ppo {

// What the training weights say of recorded actions. Copies without gradient,
// on the host; B rows of T steps, K heads, S slots.
struct EvaluationNumbers {
  at::Tensor log_probs;      // float32 [B, T, K], nats.
  at::Tensor entropies;      // float32 [B, T, K], as ActionSample's.
  at::Tensor values;         // float32 [B, T].
  at::Tensor q_values;       // float32 [B, T].
  at::Tensor contributions;  // float32 [B, T, S] or undefined.
  at::Tensor valid;          // bool [B, T]: false on padded steps.
  at::Tensor trainable;      // bool [K]: false where a head is frozen.
};

// What a client's own loss says of the outputs of one evaluation: dL/d output.
// Undefined tensors mean zero; so do padded steps, whatever they hold.
struct Cotangents {
  bool trains_policy = false;  // The loss has a policy term.
  at::Tensor log_probs;        // float32 [B, T, K].
  at::Tensor entropies;        // float32 [B, T, K].
  at::Tensor values;           // float32 [B, T].
  at::Tensor q_values;         // float32 [B, T].
  at::Tensor contributions;    // float32 [B, T, S].
};

// An evaluation that its learner may still differentiate. It holds the graph,
// which dies with it. Used from the learner's thread, except that it may be
// destroyed on any; it may outlive the learner.
class OpenEvaluation {
 public:
  virtual ~OpenEvaluation() = default;

  virtual EvaluationNumbers Numbers() const = 0;
  // False for an evaluation made without a graph, or whose graph was used.
  virtual bool differentiable() const = 0;
};

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_OPEN_EVALUATION_H_
