#ifndef ESPER_CORE_POLICY_RECURRENT_STATE_H_
#define ESPER_CORE_POLICY_RECURRENT_STATE_H_

#include "ATen/core/Tensor.h"

namespace esper::policy {

// Memory of the recurrent network between steps, one column per batch row.
// Undefined tensors stand for zeros, the state before an episode's first step.
struct RecurrentState {
  at::Tensor h;  // float32 [L, B, H]: raw output of each layer.
  at::Tensor c;  // float32 [L, B, H]: cell of each layer.

  bool defined() const { return h.defined() && c.defined(); }
};

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_RECURRENT_STATE_H_
