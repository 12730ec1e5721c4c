#ifndef ESPER_CORE_PPO_PPO_OBJECTIVE_H_
#define ESPER_CORE_PPO_PPO_OBJECTIVE_H_

#include <string>
#include <vector>

#include "core/ppo/pass_objective.h"

namespace esper::ppo {

// Proximal policy optimisation: the terms of core/ppo/losses.h over advantages
// that are estimated by GAE out of the recorded values and normalised over the
// batch.
class PpoObjective : public PassObjective {
 public:
  // `options` must outlive this.
  explicit PpoObjective(const PpoOptions& options) : options_(options) {}

  void Check() const override { options_.Check(); }
  ReturnOptions returns() const override { return options_; }
  RatioLimits ratio_limits() const override { return options_; }
  bool anchored() const override {
    return options_.denominator == RatioDenominator::kAnchor;
  }
  bool on_policy() const override { return true; }
  LossOptions Coefficients(const policy::PolicySpec& spec,
                           int64_t updates) const override;
  void SetTargets(double sigma, PassTargets* targets,
                  LossInputs* inputs) override;
  bool StopsAt(double approx_kl) const override;
  std::vector<LossTerm> Terms(const LossInputs& inputs,
                              const LossOptions& coefficients,
                              const BatchTotals& totals) const override;
  void AddMetrics(const policy::PolicySpec& spec, const RatioStatistics& ratios,
                  const LossOptions& coefficients,
                  Metrics* metrics) const override;
  std::string Json() const override;

 private:
  const PpoOptions& options_;
};

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_PPO_OBJECTIVE_H_
