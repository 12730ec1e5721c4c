#include "core/ppo/ppo_objective.h"

#include <algorithm>

#include "ATen/TensorOperators.h"
#include "core/ppo/options_json.h"
#include "nlohmann/json.hpp"

namespace esper::ppo {

LossOptions PpoObjective::Coefficients(const policy::PolicySpec& spec,
                                       int64_t updates) const {
  const HeadCoefficients heads = ResolveHeads(options_, spec);
  LossOptions loss;
  loss.clip_ratio = options_.clip_ratio;
  loss.value_clip = options_.value_clip;
  loss.contribution_clip = options_.contribution_clip;
  loss.value_coef = options_.value.At(updates);
  loss.q_coef = 0.5 * loss.value_coef;
  loss.entropy_coef = options_.entropy.At(updates);
  loss.contribution_coef = options_.contribution.At(updates);
  loss.floor_factor =
      options_.total_updates > 0
          ? FloorPenaltyFactor(static_cast<double>(updates) /
                               static_cast<double>(options_.total_updates))
          : 1.0;
  loss.entropy_multipliers = heads.multipliers;
  loss.entropy_floors = heads.floors;
  loss.entropy_floor_coefs = heads.floor_coefs;
  loss.policy_mean = options_.policy_mean;
  loss.entropy_over = options_.entropy_over;
  loss.statistics_over = options_.statistics_over;
  return loss;
}

void PpoObjective::SetTargets(double sigma, PassTargets* targets,
                              LossInputs* inputs) {
  AdvantageMoments moments = targets->moments;
  if (options_.totals.has_value()) {
    moments = AdvantageMoments(options_.totals->advantage_count,
                               options_.totals->advantage_mean,
                               options_.totals->advantage_std);
  }
  const double spread =
      std::max(moments.deviation(), AdvantageMoments::kDeviationFloor) + 1e-8;
  inputs->advantages = (targets->advantages - moments.mean()) / spread;
  inputs->value_targets = targets->returns / sigma;
  inputs->old_values = targets->values / sigma;
}

bool PpoObjective::StopsAt(double approx_kl) const {
  return !options_.part() && options_.target_kl.has_value() &&
         approx_kl > options_.kl_stop_factor * *options_.target_kl;
}

std::vector<LossTerm> PpoObjective::Terms(const LossInputs& inputs,
                                          const LossOptions& coefficients,
                                          const BatchTotals& totals) const {
  const LossTerms all = ComputeLoss(inputs, coefficients, totals);
  std::vector<LossTerm> terms = {
      {"policy", all.policy, 1.0, /*trains_policy=*/true},
      {"value", all.value, coefficients.value_coef},
      {"entropy", all.entropy, coefficients.entropy_coef},
      {"entropy_floor", all.entropy_floor},
      {"q", all.q, coefficients.q_coef},
      {"contribution", all.contribution, coefficients.contribution_coef}};
  terms.erase(std::remove_if(
                  terms.begin(), terms.end(),
                  [](const LossTerm& term) { return !term.value.defined(); }),
              terms.end());
  return terms;
}

void PpoObjective::AddMetrics(const policy::PolicySpec& spec,
                              const RatioStatistics& ratios,
                              const LossOptions& coefficients,
                              Metrics* metrics) const {
  AddRatioMetrics(spec, ratios, metrics);
  (*metrics)["value_coef"] = coefficients.value_coef;
  (*metrics)["contribution_coef"] = coefficients.contribution_coef;
  (*metrics)["floor_factor"] = coefficients.floor_factor;
}

std::string PpoObjective::Json() const { return ToJson(options_).dump(); }

}  // namespace esper::ppo
