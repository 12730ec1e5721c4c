#ifndef ESPER_CORE_PPO_LOSSES_H_
#define ESPER_CORE_PPO_LOSSES_H_

#include <cstdint>
#include <vector>

#include "ATen/core/Tensor.h"

namespace esper::ppo {

// Loss terms over several masked heads, as pure functions of tensors: those of
// proximal policy optimisation, and what other losses share with it. N counts
// valid steps, K heads in storage order, S the entries of the contribution
// predictor. Nothing here knows of networks, optimisers or rows; splitting a
// batch is expressed by `BatchTotals`.

// Which steps the mean of a head's policy loss divides by.
enum class PolicyMean : uint8_t {
  kSteps,     // All unforced steps: every step of the batch weighs the same.
  kUpstream,  // The head's own used and unforced steps; heads are then summed.
};
// Which steps the entropy bonus of a head is averaged over.
enum class EntropyOver : uint8_t {
  kAvailable,  // Unforced steps whose driver mask allowed a use of the head.
  kUpstream,   // Unforced steps whose driver action used the head.
};
// Which steps enter the divergence and the advantage statistics.
enum class StatisticsOver : uint8_t {
  kUnforced,  // Steps in which the policy had a choice.
  kUpstream,  // All steps.
};

struct LossOptions {
  double clip_ratio = 0.2;  // > 0.
  // Bound on the move of V from its recorded value, > 0; 0: no value clipping.
  double value_clip = 0.0;
  double contribution_clip = 10.0;   // Bound on targets, > 0; 0: none.
  double forced_value_weight = 0.2;  // Weight of forced steps in value losses.

  double value_coef = 0.5;         // >= 0.
  double q_coef = 0.25;            // >= 0; the learner uses value_coef / 2.
  double entropy_coef = 0.05;      // >= 0.
  double contribution_coef = 0.0;  // >= 0.
  double floor_factor = 1.0;       // >= 0; on the entropy-floor penalty.

  // Per head, length K each.
  std::vector<double> entropy_multipliers;  // Empty: 1.
  std::vector<double> entropy_floors;       // Empty: the term is off.
  std::vector<double> entropy_floor_coefs;  // Same length as the floors.

  PolicyMean policy_mean = PolicyMean::kSteps;
  EntropyOver entropy_over = EntropyOver::kAvailable;
  StatisticsOver statistics_over = StatisticsOver::kUnforced;
};

// Denominators and means over a whole batch. With them, losses of the parts of
// a batch split by rows add up to the loss of the whole, gradients included.
struct BatchTotals {
  std::vector<double> head_steps;       // [K]: used and unforced.
  std::vector<double> available_steps;  // [K]: available and unforced.
  std::vector<double> mean_entropies;   // [K]: over available_steps.
  double valid_steps = 0;
  double unforced_steps = 0;
  double value_weight = 0;          // Sum of the value weights.
  double contribution_entries = 0;  // Active contribution targets.
  // Of the advantages before normalisation, over `statistics_over`.
  double advantage_count = 0;
  double advantage_mean = 0;
  double advantage_std = 0;  // Population deviation, not floored.

  // Joins the totals of two parts of a batch. Heads must agree in number.
  void Merge(const BatchTotals& other);
};

// Everything the terms read, one row per valid step. Trained inputs carry the
// gradient; the rest is detached.
struct LossInputs {
  // Trained.
  at::Tensor log_probs;      // float32 [N, K]: of the recorded actions, nats.
  at::Tensor entropies;      // float32 [N, K]: normalised to [0, 1].
  at::Tensor values;         // float32 [N].
  at::Tensor q_values;       // float32 [N]; undefined drops the term.
  at::Tensor contributions;  // float32 [N, S]; undefined drops the term.
  // Given.
  at::Tensor old_log_probs;  // float32 [N, K]: ratio denominators, if read.
  at::Tensor old_values;     // float32 [N]; read if values are clipped.
  at::Tensor advantages;     // float32 [N]: normalised.
  at::Tensor value_targets;  // float32 [N]: in units of V.
  at::Tensor relevant;       // bool [N, K]: the effective choice used it.
  at::Tensor available;      // bool [N, K]: some allowed choice uses it.
  at::Tensor forced;         // bool [N]; undefined: no step is forced.
  at::Tensor contribution_targets;  // float32 [N, S].
  at::Tensor contribution_active;   // bool [N, S].
};

// The named terms: scalars, before their coefficients. `total` is
//   policy + value_coef value + q_coef q + entropy_coef entropy
//   + floor + contribution_coef contribution,
// where entropy is the negative weighted mean and `floor` already holds its
// coefficients. Terms that are off are undefined.
struct LossTerms {
  at::Tensor policy;
  at::Tensor value;
  at::Tensor q;
  at::Tensor entropy;
  at::Tensor entropy_floor;
  at::Tensor contribution;
  at::Tensor total;
};

// How far the trained policy is from the ratio's denominator. Plain numbers.
struct RatioStatistics {
  double approx_kl = 0;      // Weighted over heads, nats.
  double clip_fraction = 0;  // Of the joint ratio: beyond 1 +- clip_ratio.
  double clip_fraction_above = 0;
  double clip_fraction_below = 0;
  double joint_mean = 1;
  double joint_max = 1;
  double joint_min = 1;
  double joint_deviation = 0;  // Sample deviation; NaN for a single step.
  std::vector<double> head_ratio_max;      // [K], over all steps.
  std::vector<double> head_clip_fraction;  // [K], over used steps.
};

// Totals of a batch: all but the advantage fields, which GAE fills.
BatchTotals ComputeTotals(const LossInputs& inputs, const LossOptions& options);

// Statistics of exp(log_probs - old_log_probs); no gradient. `joint`, if given,
// receives the joint ratio, float32 [N].
RatioStatistics ComputeRatioStatistics(const LossInputs& inputs,
                                       const LossOptions& options,
                                       at::Tensor* joint = nullptr);

// Ratios per head: exp(clamp(log_probs - old, -20, 20)), float32 [N, K].
at::Tensor Ratios(const at::Tensor& log_probs, const at::Tensor& old_log_probs);

// Log of the ratio of each step's choice: the sum over the heads that the
// effective choice used of log_probs - old_log_probs, bounded to [-20, 20]; 0
// in forced steps. float32 [N], contiguous, no gradient.
at::Tensor JointLogRatios(const LossInputs& inputs);

// Minus the weighted log-probability of each step's choice, summed over the
// heads that the effective choice used, as a mean over unforced steps. weights:
// float32 [N], no gradient; undefined: 1.
at::Tensor LikelihoodLoss(const LossInputs& inputs, const at::Tensor& weights,
                          const BatchTotals& totals);

// Clipped surrogate, summed over heads.
at::Tensor PolicyLoss(const LossInputs& inputs, const LossOptions& options,
                      const BatchTotals& totals);
// 0.5 mean((values - targets)^2), optionally clipped around old_values.
at::Tensor ValueLoss(const LossInputs& inputs, const LossOptions& options,
                     const BatchTotals& totals);
at::Tensor QLoss(const LossInputs& inputs, const LossOptions& options,
                 const BatchTotals& totals);
// Minus the weighted mean entropy: falls as the policy becomes more random.
at::Tensor EntropyLoss(const LossInputs& inputs, const LossOptions& options,
                       const BatchTotals& totals);
// Quadratic penalty on heads whose mean entropy is under its floor.
at::Tensor EntropyFloorPenalty(const LossInputs& inputs,
                               const LossOptions& options,
                               const BatchTotals& totals);
// Mean squared error over active targets.
at::Tensor ContributionLoss(const LossInputs& inputs,
                            const LossOptions& options,
                            const BatchTotals& totals);

// All terms and their weighted sum. `totals` are those of the whole batch that
// the inputs are a part of (of the inputs themselves if they are the whole).
LossTerms ComputeLoss(const LossInputs& inputs, const LossOptions& options,
                      const BatchTotals& totals);

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_LOSSES_H_
