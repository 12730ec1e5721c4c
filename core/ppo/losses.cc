#include "core/ppo/losses.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ATen/TensorOperators.h"
#include "ATen/ops/clamp.h"
#include "ATen/ops/exp.h"
#include "ATen/ops/max.h"
#include "ATen/ops/maximum.h"
#include "ATen/ops/minimum.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/tensor.h"
#include "c10/core/GradMode.h"

namespace esper::ppo {
namespace {

// Steps in which the policy had a choice: float32 [N], 1 or 0.
at::Tensor Unforced(const LossInputs& inputs) {
  if (!inputs.forced.defined()) return at::ones({inputs.log_probs.size(0)});
  return inputs.forced.logical_not().to(at::kFloat);
}

// Weight of each step in the value losses: float32 [N].
at::Tensor ValueWeights(const LossInputs& inputs, const LossOptions& options) {
  const double forced = options.forced_value_weight;
  return Unforced(inputs).mul_(1.0 - forced).add_(forced);
}

// Steps that count for a head: float32 [N, K].
at::Tensor Counted(const at::Tensor& mask, const at::Tensor& unforced) {
  return mask.to(at::kFloat) * unforced.unsqueeze(1);
}

// Steps that the entropy bonus of each head is averaged over, and how many
// there are in the whole batch.
struct EntropyWeights {
  at::Tensor weights;  // float32 [N, K].
  const std::vector<double>* steps;
};

EntropyWeights EntropyOverSteps(const LossInputs& inputs,
                                const LossOptions& options,
                                const BatchTotals& totals) {
  const at::Tensor unforced = Unforced(inputs);
  if (options.entropy_over == EntropyOver::kUpstream) {
    return {Counted(inputs.relevant, unforced), &totals.head_steps};
  }
  return {Counted(inputs.available, unforced), &totals.available_steps};
}

// float32 [K] out of doubles, on the host.
at::Tensor Row(const std::vector<double>& values) {
  return at::tensor(values, at::kDouble).to(at::kFloat);
}

// 1 / max(count, 1) for each count.
std::vector<double> Inverse(const std::vector<double>& counts) {
  std::vector<double> inverse;
  for (double count : counts) inverse.push_back(1.0 / std::max(count, 1.0));
  return inverse;
}

std::vector<double> ToVector(const at::Tensor& row) {
  const at::Tensor host = row.to(at::kDouble).contiguous();
  const double* data = host.const_data_ptr<double>();
  return std::vector<double>(data, data + host.numel());
}

// 0.5 sum(z (x - target)^2) / max(sum z, 1), elementwise worst of x and
// `clipped` if that is given.
at::Tensor SquaredError(const at::Tensor& x, const at::Tensor& clipped,
                        const at::Tensor& targets, const at::Tensor& weights,
                        double total_weight) {
  at::Tensor error = (x - targets).square();
  if (clipped.defined()) {
    error = at::maximum(error, (clipped - targets).square());
  }
  return (weights * error).sum() * (0.5 / std::max(total_weight, 1.0));
}

}  // namespace

void BatchTotals::Merge(const BatchTotals& other) {
  if (head_steps.empty()) {
    *this = other;
    return;
  }
  for (size_t k = 0; k < head_steps.size(); ++k) {
    const double steps = available_steps[k] + other.available_steps[k];
    if (steps > 0) {
      mean_entropies[k] = (mean_entropies[k] * available_steps[k] +
                           other.mean_entropies[k] * other.available_steps[k]) /
                          steps;
    }
    available_steps[k] = steps;
    head_steps[k] += other.head_steps[k];
  }
  valid_steps += other.valid_steps;
  unforced_steps += other.unforced_steps;
  value_weight += other.value_weight;
  contribution_entries += other.contribution_entries;
  const double count = advantage_count + other.advantage_count;
  if (count <= 0) return;
  const double delta = other.advantage_mean - advantage_mean;
  const double squares =
      advantage_count * advantage_std * advantage_std +
      other.advantage_count * other.advantage_std * other.advantage_std +
      delta * delta * advantage_count * other.advantage_count / count;
  advantage_mean += delta * other.advantage_count / count;
  advantage_std = std::sqrt(squares / count);
  advantage_count = count;
}

BatchTotals ComputeTotals(const LossInputs& inputs,
                          const LossOptions& options) {
  const c10::NoGradGuard no_grad;
  const at::Tensor unforced = Unforced(inputs);
  const at::Tensor available = Counted(inputs.available, unforced);
  BatchTotals totals;
  totals.head_steps =
      ToVector(Counted(inputs.relevant, unforced).sum(0, false, at::kDouble));
  totals.available_steps = ToVector(available.sum(0, false, at::kDouble));
  totals.mean_entropies = ToVector(
      (inputs.entropies.detach() * available).sum(0, false, at::kDouble));
  for (size_t k = 0; k < totals.mean_entropies.size(); ++k) {
    totals.mean_entropies[k] /= std::max(totals.available_steps[k], 1.0);
  }
  totals.valid_steps = static_cast<double>(inputs.log_probs.size(0));
  totals.unforced_steps = unforced.sum(at::kDouble).item<double>();
  totals.value_weight =
      options.forced_value_weight * totals.valid_steps +
      (1.0 - options.forced_value_weight) * totals.unforced_steps;
  if (inputs.contribution_active.defined()) {
    totals.contribution_entries =
        inputs.contribution_active.sum(at::kDouble).item<double>();
  }
  return totals;
}

at::Tensor Ratios(const at::Tensor& log_probs,
                  const at::Tensor& old_log_probs) {
  return at::exp(at::clamp(log_probs - old_log_probs, -20.0, 20.0));
}

at::Tensor JointLogRatios(const LossInputs& inputs) {
  const c10::NoGradGuard no_grad;
  const at::Tensor used = Counted(inputs.relevant, Unforced(inputs));
  const at::Tensor logs = inputs.log_probs.detach() - inputs.old_log_probs;
  return at::clamp((logs * used).sum(1), -20.0, 20.0).contiguous();
}

at::Tensor LikelihoodLoss(const LossInputs& inputs, const at::Tensor& weights,
                          const BatchTotals& totals) {
  at::Tensor used = Counted(inputs.relevant, Unforced(inputs));
  if (weights.defined()) used = used * weights.unsqueeze(1);
  return (inputs.log_probs * used).sum() *
         (-1.0 / std::max(totals.unforced_steps, 1.0));
}

RatioStatistics ComputeRatioStatistics(const LossInputs& inputs,
                                       const LossOptions& options,
                                       at::Tensor* joint) {
  const c10::NoGradGuard no_grad;
  const at::Tensor logs =
      at::clamp(inputs.log_probs.detach() - inputs.old_log_probs, -20.0, 20.0)
          .to(at::kDouble);
  at::Tensor mask = inputs.relevant.to(at::kDouble);
  if (options.statistics_over == StatisticsOver::kUnforced) {
    mask = mask * Unforced(inputs).to(at::kDouble).unsqueeze(1);
  }
  const std::vector<double> counts = ToVector(mask.sum(0));
  const std::vector<double> divergences =
      ToVector((mask * (logs.expm1() - logs)).sum(0));
  RatioStatistics statistics;
  double divergence = 0, weight = 0;
  for (size_t k = 0; k < counts.size(); ++k) {
    divergence += counts[k] * divergences[k] / std::max(counts[k], 1.0);
    weight += counts[k];
  }
  // The weights n_h / N of the heads share N, which cancels.
  if (weight > 0) statistics.approx_kl = divergence / weight;

  const double eps = options.clip_ratio;
  const at::Tensor ratios = logs.exp();
  statistics.head_ratio_max = ToVector(std::get<0>(ratios.max(0)));
  const at::Tensor used = inputs.relevant.to(at::kDouble);
  const std::vector<double> uses = ToVector(used.sum(0));
  statistics.head_clip_fraction =
      ToVector((used * (ratios - 1.0).abs().gt(eps).to(at::kDouble)).sum(0));
  for (size_t k = 0; k < uses.size(); ++k) {
    statistics.head_clip_fraction[k] /= std::max(uses[k], 1.0);
  }

  const at::Tensor all = at::exp(at::clamp(logs.sum(1), -30.0, 30.0));
  const double n = static_cast<double>(all.size(0));
  const auto share = [n](const at::Tensor& flags) {
    return flags.sum(at::kDouble).item<double>() / n;
  };
  statistics.clip_fraction = share((all - 1.0).abs().gt(eps));
  statistics.clip_fraction_above = share(all.gt(1.0 + eps));
  statistics.clip_fraction_below = share(all.lt(1.0 - eps));
  statistics.joint_mean = all.mean().item<double>();
  statistics.joint_max = all.max().item<double>();
  statistics.joint_min = all.min().item<double>();
  statistics.joint_deviation = n > 1 ? all.std().item<double>()
                                     : std::numeric_limits<double>::quiet_NaN();
  if (joint != nullptr) *joint = all.to(at::kFloat);
  return statistics;
}

at::Tensor PolicyLoss(const LossInputs& inputs, const LossOptions& options,
                      const BatchTotals& totals) {
  const at::Tensor ratios = Ratios(inputs.log_probs, inputs.old_log_probs);
  const at::Tensor advantages = inputs.advantages.unsqueeze(1);
  const double eps = options.clip_ratio;
  const at::Tensor surrogate =
      at::minimum(ratios * advantages,
                  at::clamp(ratios, 1.0 - eps, 1.0 + eps) * advantages);
  const at::Tensor used = Counted(inputs.relevant, Unforced(inputs));
  std::vector<double> steps = totals.head_steps;
  if (options.policy_mean == PolicyMean::kSteps) {
    steps.assign(steps.size(), totals.unforced_steps);
  }
  return -(surrogate * used * Row(Inverse(steps))).sum();
}

at::Tensor ValueLoss(const LossInputs& inputs, const LossOptions& options,
                     const BatchTotals& totals) {
  at::Tensor clipped;
  if (options.value_clip > 0) {
    clipped =
        inputs.old_values + at::clamp(inputs.values - inputs.old_values,
                                      -options.value_clip, options.value_clip);
  }
  return SquaredError(inputs.values, clipped, inputs.value_targets,
                      ValueWeights(inputs, options), totals.value_weight);
}

at::Tensor QLoss(const LossInputs& inputs, const LossOptions& options,
                 const BatchTotals& totals) {
  return SquaredError(inputs.q_values, at::Tensor(), inputs.value_targets,
                      ValueWeights(inputs, options), totals.value_weight);
}

at::Tensor EntropyLoss(const LossInputs& inputs, const LossOptions& options,
                       const BatchTotals& totals) {
  const EntropyWeights over = EntropyOverSteps(inputs, options, totals);
  std::vector<double> factors = Inverse(*over.steps);
  for (size_t k = 0; k < options.entropy_multipliers.size(); ++k) {
    factors[k] *= options.entropy_multipliers[k];
  }
  return -(inputs.entropies * over.weights * Row(factors)).sum();
}

at::Tensor EntropyFloorPenalty(const LossInputs& inputs,
                               const LossOptions& options,
                               const BatchTotals& totals) {
  // The mean is that of the whole batch, of which these steps hold a share: the
  // gradient is that of the penalty's tangent there, and the value this part's
  // share of the penalty, so that parts add up to the whole.
  double penalty = 0;
  std::vector<double> slopes(totals.available_steps.size(), 0.0);
  for (size_t k = 0; k < slopes.size(); ++k) {
    const double steps = totals.available_steps[k];
    if (steps <= 0) continue;
    const double gap =
        std::max(options.entropy_floors[k] - totals.mean_entropies[k], 0.0);
    penalty += options.entropy_floor_coefs[k] * gap * gap;
    slopes[k] = -2.0 * options.entropy_floor_coefs[k] * gap / steps;
  }
  const at::Tensor weights = Counted(inputs.available, Unforced(inputs));
  const at::Tensor tangent = (inputs.entropies * weights * Row(slopes)).sum();
  const double share = static_cast<double>(inputs.log_probs.size(0)) /
                       std::max(totals.valid_steps, 1.0);
  return (tangent - tangent.detach() + penalty * share) * options.floor_factor;
}

at::Tensor ContributionLoss(const LossInputs& inputs,
                            const LossOptions& options,
                            const BatchTotals& totals) {
  at::Tensor targets = inputs.contribution_targets;
  if (options.contribution_clip > 0) {
    targets = at::clamp(targets, -options.contribution_clip,
                        options.contribution_clip);
  }
  const at::Tensor active = inputs.contribution_active.to(at::kFloat);
  return (active * (inputs.contributions - targets).square()).sum() /
         std::max(totals.contribution_entries, 1.0);
}

LossTerms ComputeLoss(const LossInputs& inputs, const LossOptions& options,
                      const BatchTotals& totals) {
  LossTerms terms;
  terms.policy = PolicyLoss(inputs, options, totals);
  terms.value = ValueLoss(inputs, options, totals);
  terms.entropy = EntropyLoss(inputs, options, totals);
  terms.total = terms.policy + options.value_coef * terms.value +
                options.entropy_coef * terms.entropy;
  if (!options.entropy_floors.empty()) {
    terms.entropy_floor = EntropyFloorPenalty(inputs, options, totals);
    terms.total = terms.total + terms.entropy_floor;
  }
  if (inputs.q_values.defined()) {
    terms.q = QLoss(inputs, options, totals);
    terms.total = terms.total + options.q_coef * terms.q;
  }
  if (inputs.contributions.defined() && inputs.contribution_targets.defined()) {
    terms.contribution = ContributionLoss(inputs, options, totals);
    terms.total = terms.total + options.contribution_coef * terms.contribution;
  }
  return terms;
}

}  // namespace esper::ppo
