#ifndef ESPER_CORE_PPO_IMPORTANCE_SAMPLING_H_
#define ESPER_CORE_PPO_IMPORTANCE_SAMPLING_H_

#include <optional>
#include <string>
#include <vector>

#include "core/ppo/pass_objective.h"

namespace esper::ppo {

// Actor-critic with V-trace (core/ppo/vtrace.h): for episodes that other
// policies than the present one acted.
//
// The ratio of a step is the product over the heads that its effective choice
// used; 1 in a forced step, which was nobody's choice. V is the present one's,
// except behind a truncated end, where the recorded bootstrap stands for it.
// Terms, over N unforced steps:
//   policy   -1/N sum A_t sum over used heads of log pi(a_t); A_t constant and
//            not normalised
//   value    as PPO's, towards v_t; q: as PPO's, towards q_t
//   entropy, contribution: as PPO's
// The statistics of values are fed with the returns of what was recorded.
class ImportanceSampling : public PassObjective {
 public:
  // `options` must outlive this.
  explicit ImportanceSampling(const ImportanceSamplingOptions& options)
      : options_(options) {}

  void Check() const override { options_.Check(); }
  std::optional<int64_t> max_version_lag() const override {
    return options_.max_version_lag;
  }
  ReturnOptions returns() const override;
  RatioLimits ratio_limits() const override { return options_; }
  LossOptions Coefficients(const policy::PolicySpec& spec,
                           int64_t updates) const override;
  void SetTargets(double sigma, PassTargets* targets,
                  LossInputs* inputs) override;
  std::vector<LossTerm> Terms(const LossInputs& inputs,
                              const LossOptions& coefficients,
                              const BatchTotals& totals) const override;
  // Besides coefficients: approx_kl, ratio_{mean,max,min} of the steps' ratios,
  // rho_clipped and c_clipped: shares of unforced steps whose ratio the bounds
  // cut.
  void AddMetrics(const policy::PolicySpec& spec, const RatioStatistics& ratios,
                  const LossOptions& coefficients,
                  Metrics* metrics) const override;
  std::string Json() const override;

 private:
  const ImportanceSamplingOptions& options_;
  at::Tensor q_targets_;       // float32 [N], units of V.
  std::vector<float> ratios_;  // Of the unforced steps.
};

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_IMPORTANCE_SAMPLING_H_
