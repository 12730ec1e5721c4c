#include "core/ppo/behaviour_cloning.h"

#include "core/ppo/options_json.h"
#include "nlohmann/json.hpp"

namespace esper::ppo {

LossOptions BehaviourCloning::Coefficients(const policy::PolicySpec& spec,
                                           int64_t /*updates*/) const {
  LossOptions loss;
  loss.value_coef = 0;
  loss.q_coef = 0;
  loss.entropy_coef = options_.entropy_coef;
  loss.entropy_multipliers = EntropyMultipliers(spec);
  return loss;
}

std::vector<LossTerm> BehaviourCloning::Terms(const LossInputs& inputs,
                                              const LossOptions& coefficients,
                                              const BatchTotals& totals) const {
  return {{"policy", LikelihoodLoss(inputs, /*weights=*/at::Tensor(), totals),
           1.0, /*trains_policy=*/true},
          {"entropy", EntropyLoss(inputs, coefficients, totals),
           coefficients.entropy_coef}};
}

std::string BehaviourCloning::Json() const { return ToJson(options_).dump(); }

}  // namespace esper::ppo
