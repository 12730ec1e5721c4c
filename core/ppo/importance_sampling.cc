#include "core/ppo/importance_sampling.h"

#include <algorithm>

#include "ATen/TensorOperators.h"
#include "ATen/ops/tensor.h"
#include "core/ppo/options_json.h"
#include "core/ppo/vtrace.h"
#include "nlohmann/json.hpp"

namespace esper::ppo {
namespace {

absl::Span<const float> SpanOf(const at::Tensor& x) {
  return {x.const_data_ptr<float>(), static_cast<size_t>(x.numel())};
}

at::Tensor ToTensor(const std::vector<float>& values) {
  return at::tensor(values, at::kFloat);
}

}  // namespace

ReturnOptions ImportanceSampling::returns() const {
  ReturnOptions returns;
  returns.gamma = options_.gamma;
  returns.gae_lambda = options_.trace_lambda;
  returns.reward_clip = options_.reward_clip;
  return returns;
}

LossOptions ImportanceSampling::Coefficients(const policy::PolicySpec& spec,
                                             int64_t /*updates*/) const {
  LossOptions loss;
  loss.value_coef = options_.value_coef;
  loss.q_coef = 0.5 * options_.value_coef;
  loss.entropy_coef = options_.entropy_coef;
  loss.contribution_coef = options_.contribution_coef;
  loss.contribution_clip = options_.contribution_clip;
  loss.entropy_multipliers = EntropyMultipliers(spec);
  return loss;
}

void ImportanceSampling::SetTargets(double sigma, PassTargets* targets,
                                    LossInputs* inputs) {
  const at::Tensor log_ratios = JointLogRatios(*inputs);
  const at::Tensor values = (inputs->values.detach() * sigma).contiguous();
  VtraceOptions options;
  options.gamma = options_.gamma;
  options.rho_bar = options_.rho_bar;
  options.c_bar = options_.c_bar;
  options.lambda = options_.trace_lambda;
  const VtraceResult result = ComputeVtrace(
      {SpanOf(log_ratios), SpanOf(targets->rewards), SpanOf(values),
       SpanOf(targets->bootstraps), targets->ends},
      options);
  targets->values = values;
  targets->returns = ToTensor(result.targets);
  targets->advantages = ToTensor(result.advantages);
  targets->td_errors = ToTensor(result.td_errors);
  targets->moments = AdvantageMoments();
  ratios_.clear();
  const at::Tensor forced = inputs->forced.contiguous();
  for (size_t i = 0; i < result.ratios.size(); ++i) {
    if (forced.const_data_ptr<bool>()[i]) continue;
    ratios_.push_back(result.ratios[i]);
    targets->moments.Add(result.advantages[i]);
  }
  inputs->advantages = targets->advantages;
  inputs->value_targets = targets->returns / sigma;
  inputs->old_values = values / sigma;
  q_targets_ = ToTensor(result.q_targets) / sigma;
}

std::vector<LossTerm> ImportanceSampling::Terms(
    const LossInputs& inputs, const LossOptions& coefficients,
    const BatchTotals& totals) const {
  std::vector<LossTerm> terms = {
      {"policy", LikelihoodLoss(inputs, inputs.advantages, totals), 1.0,
       /*trains_policy=*/true},
      {"value", ValueLoss(inputs, coefficients, totals),
       coefficients.value_coef},
      {"entropy", EntropyLoss(inputs, coefficients, totals),
       coefficients.entropy_coef}};
  if (inputs.q_values.defined()) {
    LossInputs towards_q = inputs;
    towards_q.value_targets = q_targets_;
    terms.push_back(
        {"q", QLoss(towards_q, coefficients, totals), coefficients.q_coef});
  }
  if (coefficients.contribution_coef > 0 && inputs.contributions.defined() &&
      inputs.contribution_targets.defined()) {
    terms.push_back({"contribution",
                     ContributionLoss(inputs, coefficients, totals),
                     coefficients.contribution_coef});
  }
  return terms;
}

void ImportanceSampling::AddMetrics(const policy::PolicySpec& /*spec*/,
                                    const RatioStatistics& ratios,
                                    const LossOptions& coefficients,
                                    Metrics* metrics) const {
  Metrics& m = *metrics;
  m["approx_kl"] = ratios.approx_kl;
  m["value_coef"] = coefficients.value_coef;
  m["contribution_coef"] = coefficients.contribution_coef;
  if (ratios_.empty()) return;
  double sum = 0, above_rho = 0, above_c = 0;
  for (const float ratio : ratios_) {
    sum += ratio;
    above_rho += ratio > options_.rho_bar ? 1 : 0;
    above_c += ratio > options_.c_bar ? 1 : 0;
  }
  const double steps = static_cast<double>(ratios_.size());
  const auto [low, high] = std::minmax_element(ratios_.begin(), ratios_.end());
  m["ratio_mean"] = sum / steps;
  m["ratio_min"] = *low;
  m["ratio_max"] = *high;
  m["rho_clipped"] = above_rho / steps;
  m["c_clipped"] = above_c / steps;
}

std::string ImportanceSampling::Json() const { return ToJson(options_).dump(); }

}  // namespace esper::ppo
