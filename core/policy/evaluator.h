#ifndef ESPER_CORE_POLICY_EVALUATOR_H_
#define ESPER_CORE_POLICY_EVALUATOR_H_

#include <optional>
#include <vector>

#include "ATen/core/Tensor.h"
#include "core/policy/gradient_contract.h"
#include "core/policy/policy_spec.h"
#include "core/policy/recurrent_state.h"

namespace esper::policy {

class RecurrentPolicy;

// B recorded sequences of T steps, on the host.
struct EvaluationInputs {
  // float32 [B, T, D]: as the network sees them, that is normalised if acting
  // normalised. May require a gradient.
  at::Tensor observations;
  at::Tensor categorical;  // int64 [B, T, S]; undefined if there is none.
  at::Tensor actions;      // int64 [B, T, K], storage order.
  // float32 [B, T, C], values of the Gaussian heads; undefined if there are
  // none.
  at::Tensor continuous_actions;
  // bool [B, T, A], or [B, A] for all steps; undefined: all allowed. For a head
  // with a conditional mask: the row of the driver's choice taken.
  at::Tensor action_masks;
  RecurrentState state;  // Before step 0; undefined: zeros. May require grad.
  // bool [B, T]: the state of the row is zeroed before that step, and no
  // gradient crosses. Undefined: never.
  at::Tensor reset;
  // bool [B, T]: false marks padding, which is computed as any step but exempt
  // from the checks of actions and masks. Undefined: all valid.
  at::Tensor valid;
};

struct EvaluationOptions {
  // Absent: the specification's.
  std::optional<FloorSettings> floors;
  // The contribution predictor sends no gradient into the trunk.
  bool aux_stop_gradient = true;
  bool q_values = true;       // Where the network has them.
  bool contributions = true;  // Where the network has them.
};

// Inside an open gradient graph, which lives as long as these tensors do.
struct Evaluation {
  DifferentiableTensor log_probs;      // float32 [B, T, K], nats.
  DifferentiableTensor entropies;      // float32 [B, T, K], as ActionSample.
  DifferentiableTensor values;         // float32 [B, T]: V(s).
  DifferentiableTensor q_values;       // float32 [B, T]: of the choice taken.
  DifferentiableTensor contributions;  // float32 [B, T, S].
  RecurrentState state;                // After the last step.
  std::vector<bool> trainable;  // Per head: some parameter of its own trains.
};

// The same numbers without a graph.
struct ReferenceEvaluation {
  BehaviourTensor log_probs, entropies, values, q_values, contributions;
  RecurrentState state;
};

// Scores recorded actions for training. Relevance follows the given driver
// choices. Draws no random number except dropout in training mode.
//
// Throws GradientContractError (NOT_DIFFERENTIABLE) when inference mode is on,
// gradient mode is off, an input is an inference tensor, or no parameter is
// trainable; when only some heads are frozen it logs once per network and head.
// Then ShapeError, NonFiniteError (input, with row and step),
// InvalidArgumentError (BAD_BLUEPRINT_INDEX, BAD_FLOOR), InvalidActionError for
// an action out of range anywhere, or disallowed or not the placeholder (zeros
// for a Gaussian head) in a valid step; EmptyMaskError; NonFiniteError
// (logits).
//
// Thread safety: may run concurrently with other evaluations of `network` if it
// is in evaluation mode.
Evaluation EvaluateActions(const RecurrentPolicy& network,
                           const EvaluationInputs& inputs,
                           const EvaluationOptions& options = {});

// The same without gradient; allowed in any mode and with inference tensors.
// Dropout is off.
ReferenceEvaluation EvaluateReference(const RecurrentPolicy& network,
                                      const EvaluationInputs& inputs,
                                      const EvaluationOptions& options = {});

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_EVALUATOR_H_
