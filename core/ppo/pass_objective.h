#ifndef ESPER_CORE_PPO_PASS_OBJECTIVE_H_
#define ESPER_CORE_PPO_PASS_OBJECTIVE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "core/policy/policy_spec.h"
#include "core/ppo/learner_options.h"
#include "core/ppo/losses.h"
#include "core/ppo/pass.h"
#include "core/ppo/pass_metrics.h"
#include "core/ppo/trajectory.h"

namespace esper::ppo {

// A named part of a loss: the loss is the sum of coefficient x value.
struct LossTerm {
  std::string name;
  at::Tensor value;  // Scalar, with a gradient if the pass makes one.
  double coefficient = 1;
  bool trains_policy = false;  // It must reach the parameters of every head.
};

// What differs between the losses that a pass can be made with. The pass asks
// in the order of the methods: first what it needs to read, then, with the
// recorded actions evaluated, the targets, the terms and the metrics.
//
// Lives for one pass. Throws esper::Error for a caller's mistake. Not
// thread-safe.
class PassObjective {
 public:
  virtual ~PassObjective() = default;

  // Throws InvalidArgumentError (MALFORMED_REQUEST), naming the option.
  virtual void Check() const = 0;
  // What of the episodes is read. Imitation takes none of the three below.
  virtual TrajectoryUse use() const { return TrajectoryUse::kReinforcement; }
  // Versions that steps may be behind; absent: the learner's limit.
  virtual std::optional<int64_t> max_version_lag() const {
    return std::nullopt;
  }
  // Of the returns that feed the statistics of values.
  virtual ReturnOptions returns() const { return {}; }
  virtual RatioLimits ratio_limits() const { return {}; }
  // Ratios divide by the published weights' log-probs, evaluated again.
  virtual bool anchored() const { return false; }
  // Ratios far from 1 are not what the loss is for.
  virtual bool on_policy() const { return false; }

  // Coefficients after so many finished updates.
  virtual LossOptions Coefficients(const policy::PolicySpec& spec,
                                   int64_t updates) const = 0;
  // Fills in the advantages and value targets of `inputs`, whose other members
  // are there; may replace `targets`, which hold what was recorded. sigma:
  // scaled reward per unit of V, > 0.
  virtual void SetTargets(double sigma, PassTargets* targets,
                          LossInputs* inputs) = 0;
  // Whether the pass must not be stepped with at this divergence.
  virtual bool StopsAt(double approx_kl) const {
    (void)approx_kl;
    return false;
  }
  // `totals` are those of the whole batch that the inputs are a part of.
  virtual std::vector<LossTerm> Terms(const LossInputs& inputs,
                                      const LossOptions& coefficients,
                                      const BatchTotals& totals) const = 0;
  // What the loss has to say besides its terms. `ratios` are those of the
  // inputs, all 1 in imitation.
  virtual void AddMetrics(const policy::PolicySpec& spec,
                          const RatioStatistics& ratios,
                          const LossOptions& coefficients,
                          Metrics* metrics) const = 0;
  // The options, JSON.
  virtual std::string Json() const = 0;
};

// `options` must outlive the objective.
std::unique_ptr<PassObjective> MakeObjective(const PassOptions& options);

// Entropy multipliers of a specification's heads.
std::vector<double> EntropyMultipliers(const policy::PolicySpec& spec);

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_PASS_OBJECTIVE_H_
