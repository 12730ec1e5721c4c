#ifndef ESPER_CORE_POLICY_DIAGONAL_GAUSSIAN_H_
#define ESPER_CORE_POLICY_DIAGONAL_GAUSSIAN_H_

#include "ATen/core/Tensor.h"
#include "core/policy/head_layout.h"

namespace esper::policy {

// Log standard deviations are kept within +-20, so that densities of finite
// actions stay finite; outside they get no gradient.
inline constexpr double kLogStdLimit = 20;

// All G Gaussian heads of N rows, as independent normal distributions over C
// dimensions. The one implementation of density, entropy and sampling, used for
// acting and for training; all in float32. A head that does not matter holds
// zeros and has log-probability and entropy 0. Values keep the gradient to
// means and deviations. The layout must outlive it.
class DiagonalGaussian {
 public:
  //   means:    float32 [N, C].
  //   log_std:  float32 [C], logarithms of standard deviations.
  //   relevant: bool [N, K]: which heads matter (HeadLayout::Relevance).
  DiagonalGaussian(const HeadLayout& layout, const at::Tensor& means,
                   const at::Tensor& log_std, const at::Tensor& relevant);

  // Log density of values [N, C], summed over the dimensions of each head:
  // float32 [N, G], nats; above 0 where the density is.
  at::Tensor LogProb(const at::Tensor& values) const;
  // Differential entropy, sum over dimensions of log_std + log(2 pi e) / 2:
  // float32 [N, G], nats. Not normalised, and negative for small deviations.
  at::Tensor Entropy() const;
  // The means, float32 [N, C].
  at::Tensor Mode() const;
  // means + deviation * noise, float32 [N, C]. noise: float32 [N, C].
  at::Tensor Sample(const at::Tensor& noise) const;

 private:
  // x: [N, C] -> [N, G], summed over the dimensions of each head that matters.
  at::Tensor SumPerHead(const at::Tensor& x) const;
  // Zeros in the dimensions of heads that do not matter.
  at::Tensor Masked(const at::Tensor& x) const;

  const HeadLayout& layout_;
  at::Tensor means_;
  at::Tensor log_std_;          // [C], limited.
  at::Tensor relevant_;         // bool [N, G].
  at::Tensor relevant_values_;  // bool [N, C].
};

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_DIAGONAL_GAUSSIAN_H_
