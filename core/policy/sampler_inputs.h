#ifndef ESPER_CORE_POLICY_SAMPLER_INPUTS_H_
#define ESPER_CORE_POLICY_SAMPLER_INPUTS_H_

#include <cstdint>
#include <string>

#include "ATen/core/Tensor.h"
#include "core/policy/head_layout.h"
#include "core/policy/policy_spec.h"
#include "core/policy/recurrent_state.h"
#include "core/policy/sampler.h"

// Checks of what acting takes, and its noise as tensors. Shared by the sampler
// of tensors and the packed policy.
namespace esper::policy {

// One step of every row, checked.
struct CheckedStep {
  at::Tensor observations;  // [B, 1, D].
  at::Tensor categorical;   // [B, 1, S].
  RecurrentState state;
  int64_t batch = 0;
};
// Contract and shapes; values are not read. `call` is named in errors.
CheckedStep CheckStep(const PolicySpec& spec, const PolicyInputs& inputs,
                      const std::string& call);
// bool [B, A], or undefined if it was. ShapeError.
at::Tensor CheckMasks(const HeadLayout& layout, const at::Tensor& masks,
                      int64_t batch);
// ShapeError unless undefined or bool [B, driver size, size].
void CheckConditional(const HeadLayout& layout, const at::Tensor& mask,
                      const PolicyInputs& inputs, int64_t batch);
// Shapes and values of given noise, number of keys.
void CheckNoise(const Noise& noise, const HeadLayout& layout, int64_t batch);

// Packed noise [B, A] and the rows that must not use it; both undefined if no
// row does. `normal`: that of Gaussian heads, [B, C], 0 in those rows.
struct DrawnNoise {
  at::Tensor noise;
  at::Tensor deterministic;
  at::Tensor normal;
};
// `noise` must be checked.
DrawnNoise Draw(const Noise& noise, const HeadLayout& layout, int64_t batch);

// The head whose logits are reported: what Q takes, or the first sampled; -1
// without categorical heads.
int64_t ReportedHead(const PolicySpec& spec, const HeadLayout& layout);

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_SAMPLER_INPUTS_H_
