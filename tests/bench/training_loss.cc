#include "tests/bench/training_loss.h"

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/TensorOperators.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/minimum.h"
#include "c10/core/GradMode.h"
#include "torch/csrc/autograd/autograd.h"

namespace esper::bench {
namespace {

constexpr double kClip = 0.2;
constexpr double kEntropy = 0.05;
constexpr double kValue = 0.5;
constexpr double kAuxiliary = 0.05;

}  // namespace

LossTargets RandomTargets(const ppo::EvaluationNumbers& numbers,
                          uint64_t seed) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const auto normal = [&](const at::Tensor& like, double deviation) {
    return at::empty(like.sizes(), at::kFloat).normal_(0, deviation, generator);
  };
  LossTargets targets;
  targets.old_log_probs = numbers.log_probs + normal(numbers.log_probs, 0.1);
  targets.advantages = normal(numbers.values, 1);
  targets.returns = normal(numbers.values, 1);
  targets.contributions = normal(numbers.contributions, 1);
  return targets;
}

ClientLoss ComputeClientLoss(const ppo::EvaluationNumbers& numbers,
                             const LossTargets& targets) {
  const c10::AutoGradMode grad_mode(true);
  const auto leaf = [](const at::Tensor& x) {
    return x.detach().requires_grad_();
  };
  const at::Tensor log_probs = leaf(numbers.log_probs);
  const at::Tensor entropies = leaf(numbers.entropies);
  const at::Tensor values = leaf(numbers.values);
  const at::Tensor q_values = leaf(numbers.q_values);
  const at::Tensor contributions = leaf(numbers.contributions);
  const double steps = static_cast<double>(values.numel());

  const at::Tensor ratio = (log_probs - targets.old_log_probs).exp();
  const at::Tensor advantages = targets.advantages.unsqueeze(2);
  const at::Tensor policy =
      -at::minimum(ratio * advantages,
                   ratio.clamp(1 - kClip, 1 + kClip) * advantages)
           .sum() /
      steps;
  const at::Tensor loss =
      policy - kEntropy * entropies.sum() / steps +
      kValue * (values - targets.returns).square().mean() +
      kAuxiliary * (q_values - targets.returns).square().mean() +
      kAuxiliary * (contributions - targets.contributions).square().mean();

  const std::vector<at::Tensor> gradients = torch::autograd::grad(
      {loss}, {log_probs, entropies, values, q_values, contributions});
  ClientLoss result;
  result.loss = loss.item<double>();
  result.cotangents.trains_policy = true;
  result.cotangents.log_probs = gradients[0];
  result.cotangents.entropies = gradients[1];
  result.cotangents.values = gradients[2];
  result.cotangents.q_values = gradients[3];
  result.cotangents.contributions = gradients[4];
  return result;
}

}  // namespace esper::bench
