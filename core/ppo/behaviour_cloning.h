#ifndef ESPER_CORE_PPO_BEHAVIOUR_CLONING_H_
#define ESPER_CORE_PPO_BEHAVIOUR_CLONING_H_

#include <string>
#include <vector>

#include "core/ppo/pass_objective.h"

namespace esper::ppo {

// Imitation of recorded actions. Terms, over N unforced steps:
//   policy   -1/N sum over steps and the heads that the effective choice used
//            of log pi(a_t)
//   entropy  as PPO's
// Reads what was seen and done, and nothing that acting or the environment
// answered (TrajectoryUse::kImitation); trains the policy alone.
class BehaviourCloning : public PassObjective {
 public:
  // `options` must outlive this.
  explicit BehaviourCloning(const BehaviourCloningOptions& options)
      : options_(options) {}

  void Check() const override { options_.Check(); }
  TrajectoryUse use() const override { return TrajectoryUse::kImitation; }
  LossOptions Coefficients(const policy::PolicySpec& spec,
                           int64_t updates) const override;
  void SetTargets(double /*sigma*/, PassTargets* /*targets*/,
                  LossInputs* /*inputs*/) override {}
  std::vector<LossTerm> Terms(const LossInputs& inputs,
                              const LossOptions& coefficients,
                              const BatchTotals& totals) const override;
  void AddMetrics(const policy::PolicySpec& /*spec*/,
                  const RatioStatistics& /*ratios*/,
                  const LossOptions& /*coefficients*/,
                  Metrics* /*metrics*/) const override {}
  std::string Json() const override;

 private:
  const BehaviourCloningOptions& options_;
};

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_BEHAVIOUR_CLONING_H_
