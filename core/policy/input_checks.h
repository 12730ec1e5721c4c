#ifndef ESPER_CORE_POLICY_INPUT_CHECKS_H_
#define ESPER_CORE_POLICY_INPUT_CHECKS_H_

#include <cstdint>
#include <string>

#include "ATen/core/Tensor.h"
#include "core/policy/head_layout.h"
#include "core/policy/masked_categorical.h"
#include "core/policy/policy_spec.h"
#include "core/policy/recurrent_state.h"

// Checks of policy inputs, shared by acting and evaluation. All stay on in
// production. Each throws a typed error with the row (and step) at fault and
// changes nothing.
namespace esper::policy {

// Shapes of B rows of T steps: observations [B, T, D], categorical [B, T, S].
// ShapeError.
void CheckObservationShapes(const PolicySpec& spec,
                            const at::Tensor& observations,
                            const at::Tensor& categorical);
// h and c, both or neither, [L, batch, H]. ShapeError.
void CheckStateShapes(const PolicySpec& spec, const RecurrentState& state,
                      int64_t batch);
// Finite observations and state (NONFINITE_INPUT), categorical values in range
// (BAD_BLUEPRINT_INDEX). Shapes must be right.
void CheckInputValues(const PolicySpec& spec, const at::Tensor& observations,
                      const at::Tensor& categorical,
                      const RecurrentState& state);

// EmptyMaskError for the first row without an allowed choice for some head of
// the level. counts: int64 [N, heads of the level]; row and step are N divided
// by `steps`, and the step is left out if `steps` is 0. `valid`: bool [N] or
// undefined; rows where it is false are exempt.
void CheckNotEmpty(const PolicySpec& spec, const HeadLevel& level,
                   const at::Tensor& counts, int64_t steps,
                   const at::Tensor& valid);

// NonFiniteError::Logits unless all are finite. logits: float32 [N, A].
void CheckLogits(const PolicySpec& spec, const HeadLayout& layout,
                 const at::Tensor& logits);
// The same for what Gaussian heads are made of. means: float32 [N, C];
// log_std: float32 [C].
void CheckGaussian(const PolicySpec& spec, const HeadLayout& layout,
                   const at::Tensor& means, const at::Tensor& log_std);

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_INPUT_CHECKS_H_
