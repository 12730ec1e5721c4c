#include "core/policy/diagonal_gaussian.h"

#include <vector>

#include "ATen/ops/cat.h"
#include "ATen/ops/stack.h"
#include "ATen/ops/where.h"

namespace esper::policy {
namespace {

constexpr double kHalfLogTwoPi = 0.9189385332046727;

}  // namespace

DiagonalGaussian::DiagonalGaussian(const HeadLayout& layout,
                                   const at::Tensor& means,
                                   const at::Tensor& log_std,
                                   const at::Tensor& relevant)
    : layout_(layout),
      means_(means.to(at::kFloat)),
      log_std_(log_std.clamp(-kLogStdLimit, kLogStdLimit)) {
  std::vector<at::Tensor> heads;
  std::vector<at::Tensor> values;
  for (const int64_t k : layout.gaussian_heads()) {
    const at::Tensor head = relevant.narrow(1, k, 1);
    heads.push_back(head);
    values.push_back(head.expand({head.size(0), layout.dimensions(k)}));
  }
  relevant_ = at::cat(heads, 1);
  relevant_values_ = at::cat(values, 1);
}

at::Tensor DiagonalGaussian::LogProb(const at::Tensor& values) const {
  const at::Tensor z = values.sub(means_).mul(log_std_.neg().exp());
  return SumPerHead(z.square().mul(-0.5).sub(log_std_).sub(kHalfLogTwoPi));
}

at::Tensor DiagonalGaussian::Entropy() const {
  return SumPerHead(log_std_.add(0.5 + kHalfLogTwoPi).expand_as(means_));
}

at::Tensor DiagonalGaussian::Mode() const { return Masked(means_); }

at::Tensor DiagonalGaussian::Sample(const at::Tensor& noise) const {
  return Masked(means_.add(log_std_.exp().mul(noise)));
}

at::Tensor DiagonalGaussian::SumPerHead(const at::Tensor& x) const {
  std::vector<at::Tensor> sums;
  for (const int64_t k : layout_.gaussian_heads()) {
    sums.push_back(
        x.narrow(1, layout_.continuous_offset(k), layout_.dimensions(k))
            .sum(1));
  }
  return at::where(relevant_, at::stack(sums, 1), 0.0f);
}

at::Tensor DiagonalGaussian::Masked(const at::Tensor& x) const {
  return at::where(relevant_values_, x, 0.0f);
}

}  // namespace esper::policy
