#include "core/ppo/adam.h"

#include <cmath>
#include <utility>

#include "ATen/ops/zeros_like.h"
#include "c10/core/GradMode.h"

namespace esper::ppo {
namespace {

// In float64, without a copy: sums side by side, as a vector unit has them.
double SumOfSquares(const float* x, int64_t count) {
  constexpr int kLanes = 16;
  double sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double value = x[i + lane];
      sums[lane] += value * value;
    }
  }
  double sum = 0;
  for (; i < count; ++i) sum += static_cast<double>(x[i]) * x[i];
  for (const double lane : sums) sum += lane;
  return sum;
}

}  // namespace

Adam::Adam(std::vector<at::Tensor> parameters, std::vector<double> decays,
           const Options& options)
    : parameters_(std::move(parameters)),
      decays_(std::move(decays)),
      options_(options) {
  TORCH_CHECK(parameters_.size() == decays_.size(),
              "one weight decay per parameter is needed");
  for (const at::Tensor& parameter : parameters_) {
    const at::Tensor zeros = at::zeros_like(parameter.detach());
    slots_.push_back({zeros, zeros.clone(), 0});
  }
}

double Adam::Step(const std::vector<at::Tensor>& gradients) {
  const c10::NoGradGuard no_grad;
  TORCH_CHECK(gradients.size() == parameters_.size(),
              "one gradient per parameter is needed");
  // The whole step is prepared beside the parameters, then taken at once.
  std::vector<Slot> next = slots_;
  std::vector<at::Tensor> changes(parameters_.size());
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& gradient = gradients[i];
    if (!gradient.defined()) continue;
    Slot& slot = next[i];
    slot.step += 1;
    slot.m = slot.m.lerp(gradient, 1.0 - options_.beta1);
    slot.v = slot.v.mul(options_.beta2)
                 .addcmul_(gradient, gradient, 1.0 - options_.beta2);
    const double step = static_cast<double>(slot.step);
    const double correction1 = 1.0 - std::pow(options_.beta1, step);
    const double correction2 = 1.0 - std::pow(options_.beta2, step);
    const at::Tensor spread =
        slot.v.sqrt().div_(std::sqrt(correction2)).add_(options_.epsilon);
    changes[i] = slot.m.div(spread).mul_(-options_.learning_rate / correction1);
    if (decays_[i] > 0) {
      changes[i].add_(parameters_[i].detach(),
                      -options_.learning_rate * decays_[i]);
    }
  }
  // A second moment that overflowed would freeze its weight for good.
  std::vector<at::Tensor> spreads;
  for (const Slot& slot : next) spreads.push_back(slot.v);
  const double norm = GlobalNorm(changes);
  if (!std::isfinite(norm) || !std::isfinite(GlobalNorm(spreads))) return -1.0;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (changes[i].defined()) parameters_[i].add_(changes[i]);
  }
  slots_ = std::move(next);
  return norm;
}

double GlobalNorm(const std::vector<at::Tensor>& tensors) {
  const c10::NoGradGuard no_grad;
  double squares = 0;
  for (const at::Tensor& tensor : tensors) {
    if (!tensor.defined()) continue;
    const at::Tensor numbers = tensor.detach().contiguous();
    squares += SumOfSquares(numbers.const_data_ptr<float>(), numbers.numel());
  }
  return std::sqrt(squares);
}

}  // namespace esper::ppo
