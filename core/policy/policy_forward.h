#ifndef ESPER_CORE_POLICY_POLICY_FORWARD_H_
#define ESPER_CORE_POLICY_POLICY_FORWARD_H_

#include "ATen/core/Tensor.h"
#include "core/policy/gradient_contract.h"
#include "core/policy/recurrent_state.h"
#include "core/policy/sampler.h"

namespace esper::policy {

// B sequences of T steps to look at, on the host. None may require a gradient.
struct ForwardInputs {
  at::Tensor observations;  // float32 [B, T, D] or [B, D], which means T = 1:
                            // as the network sees them.
  at::Tensor categorical;   // int64 [B, T, S] or [B, S]; undefined if the
                            // specification has none.
  RecurrentState state;     // Before step 0; undefined: zeros.
  // bool [B, T, A] or [B, A]; may be undefined only if the specification has
  // `mask_optional`: all allowed.
  at::Tensor action_masks;
};

// All tensors are inference tensors on the host.
struct ForwardOutput {
  // float32 [B, T, A], packed in storage order: kMaskedLogit where a choice is
  // not allowed; before any floor, and whatever a driver would choose.
  BehaviourTensor logits;
  // float32 [B, T, C]: means of the Gaussian heads, whatever a driver would
  // choose; undefined without one.
  BehaviourTensor means;
  BehaviourTensor values;  // float32 [B, T]: V(s).
  // float32 [B, T, choices]: Q of every choice of the head that Q takes;
  // undefined if the network has none.
  BehaviourTensor q_values;
  RecurrentState state;  // After the last step.
};

// The network's raw answers for diagnostics: chooses nothing and draws no
// random number. Errors as in `GetAction`; EmptyMaskError, with row and step,
// for heads without a driver.
ForwardOutput Forward(const ActingPolicy& policy, const ForwardInputs& inputs);

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_POLICY_FORWARD_H_
