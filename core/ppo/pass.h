#ifndef ESPER_CORE_PPO_PASS_H_
#define ESPER_CORE_PPO_PASS_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/types/span.h"
#include "core/policy/evaluator.h"
#include "core/policy/gradient_contract.h"
#include "core/ppo/gae.h"
#include "core/ppo/learner_options.h"
#include "core/ppo/losses.h"
#include "core/ppo/normalizer.h"
#include "core/ppo/trajectory.h"
#include "core/ppo/trajectory_rules.h"

// The pieces of one forward-backward pass, between recorded episodes and loss
// terms. Pure functions.
namespace esper::ppo {

// In what units episodes are recorded and trained.
struct RewardUnits {
  double deviation = 1;  // Raw rewards are divided by it, > 0, ...
  double clip = 0;       // ... and then bounded by it; 0: not.
  // Raw reward per unit of V under a policy version.
  std::function<double(int64_t version)> value_unit;
  // Rewards that are scaled already, by row, in place of the above; empty: not.
  std::vector<std::vector<double>> rewards;
};

// The reference implementation's reward scaling over a batch: step by step, the
// rows of a step in order, each reward moving the statistics before it is
// divided. `normalizer` is left where the batch ends. Rewards must be finite.
std::vector<std::vector<double>> NormalizeRewards(
    absl::Span<const Trajectory> trajectories, RewardNormalizer* normalizer);

// What a pass is trained towards, per valid step, row by row: host float32 [N],
// in scaled reward units.
struct PassTargets {
  at::Tensor advantages;  // Not normalised.
  at::Tensor returns;
  at::Tensor values;  // As recorded.
  at::Tensor td_errors;
  AdvantageMoments moments;  // Over options.statistics_over.

  // What they are made of: rewards scaled, and bounded; what follows a step,
  // and the bootstrap value behind truncated ones. All [N], the first two
  // float32.
  at::Tensor rewards;
  at::Tensor bootstraps;
  std::vector<StepEnd> ends;
};

PassTargets ComputeTargets(absl::Span<const Trajectory> trajectories,
                           const ReturnOptions& options,
                           const RewardUnits& units);

// Which heads the effective choices used, and which an allowed choice could
// have used: bool [N, K].
struct HeadUse {
  at::Tensor relevant;
  at::Tensor available;
};
HeadUse ComputeHeadUse(const TrajectoryBatch& batch,
                       const TrajectoryRules& rules);

// Joins trained outputs with the numbers recorded by acting (or by a reference
// evaluation), which can only be the ratio's denominator: the types keep the
// two apart. Padding is dropped. `before`: float32 [B, T, K], or undefined: the
// loss reads no ratio.
LossInputs BindInputs(const policy::Evaluation& now,
                      const policy::BehaviourTensor& before,
                      const TrajectoryBatch& batch, const HeadUse& use);
// The same for an evaluation without gradient, to compute totals.
LossInputs BindInputs(const policy::ReferenceEvaluation& now,
                      const policy::BehaviourTensor& before,
                      const TrajectoryBatch& batch, const HeadUse& use);

// Options by head name as lists in storage order. INVALID_ARGUMENT
// (MALFORMED_REQUEST), thrown, for a head that the specification lacks among
// the multipliers; floors of heads that it lacks are ignored, and so are those
// of Gaussian heads, whose entropy has no scale that a floor could be set on.
struct HeadCoefficients {
  std::vector<double> multipliers, floors, floor_coefs;
};
HeadCoefficients ResolveHeads(const PpoOptions& options,
                              const policy::PolicySpec& spec);

// Largest and mean |now - before| over the heads of the steps where `counted`
// (bool [B, T]) is true, and where the largest is.
struct LogProbDifference {
  double max = 0;
  double mean = 0;
  int64_t row = -1, step = -1, head = -1;
  int64_t steps = 0;
};
LogProbDifference CompareLogProbs(const at::Tensor& now,
                                  const at::Tensor& before,
                                  const at::Tensor& counted);

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_PASS_H_
