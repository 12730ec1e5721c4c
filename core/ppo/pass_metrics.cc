#include "core/ppo/pass_metrics.h"

#include <algorithm>
#include <cmath>

#include "ATen/TensorOperators.h"
#include "ATen/ops/isfinite.h"
#include "c10/core/GradMode.h"
#include "core/policy/network_forward.h"
#include "core/ppo/adam.h"
#include "core/ppo/diagnostics.h"

namespace esper::ppo {
namespace {

absl::Span<const float> SpanOf(const at::Tensor& x) {
  return {x.const_data_ptr<float>(), static_cast<size_t>(x.numel())};
}

// The first row, and of sequences the first step.
at::Tensor FirstStep(const at::Tensor& x) {
  return x.defined() ? x.slice(0, 0, 1).slice(1, 0, 1) : x;
}

}  // namespace

void AddRatioMetrics(const policy::PolicySpec& spec,
                     const RatioStatistics& ratios, Metrics* metrics) {
  Metrics& m = *metrics;
  m["approx_kl"] = ratios.approx_kl;
  m["clip_fraction"] = ratios.clip_fraction;
  m["clip_fraction_above"] = ratios.clip_fraction_above;
  m["clip_fraction_below"] = ratios.clip_fraction_below;
  m["ratio_mean"] = ratios.joint_mean;
  m["ratio_max"] = ratios.joint_max;
  m["ratio_min"] = ratios.joint_min;
  if (!std::isnan(ratios.joint_deviation)) {
    m["ratio_std"] = ratios.joint_deviation;
  }
  for (size_t k = 0; k < spec.heads.size(); ++k) {
    const std::string& head = spec.heads[k].name;
    m["ratio_max." + head] = ratios.head_ratio_max[k];
    m["clip_fraction." + head] = ratios.head_clip_fraction[k];
  }
}

void AddHeadMetrics(const policy::PolicySpec& spec, const LossInputs& inputs,
                    const at::Tensor& masks, const BatchTotals& totals,
                    Metrics* metrics) {
  const c10::NoGradGuard no_grad;
  Metrics& m = *metrics;
  const double steps = std::max(totals.valid_steps, 1.0);
  at::Tensor used = inputs.relevant;
  if (inputs.forced.defined()) {
    used = used.logical_and(inputs.forced.logical_not().unsqueeze(1));
  }
  const at::Tensor entropies = (inputs.entropies.detach() * used.to(at::kFloat))
                                   .sum(0, false, at::kDouble);
  double sum = 0;
  int64_t available = 0, offset = 0;
  for (int64_t k = 0; k < spec.num_heads(); ++k) {
    const policy::HeadSpec& head = spec.heads[k];
    const at::Tensor several =
        masks.slice(1, offset, offset + head.size).sum(1).gt(1);
    offset += head.size;
    if (totals.available_steps[k] > 0) {
      sum += totals.mean_entropies[k];
      ++available;
    }
    m["entropy." + head.name] = totals.mean_entropies[k];
    m["entropy_used." + head.name] =
        entropies[k].item<double>() / std::max(totals.head_steps[k], 1.0);
    m["share_used." + head.name] = totals.head_steps[k] / steps;
    m["share_choice." + head.name] =
        several.logical_and(inputs.relevant.select(1, k))
            .sum(at::kDouble)
            .item<double>() /
        steps;
  }
  m["mean_entropy"] =
      sum / static_cast<double>(std::max<int64_t>(available, 1));
}

void AddValueMetrics(const PassTargets& targets, Metrics* metrics) {
  Metrics& m = *metrics;
  const auto values = SpanOf(targets.values);
  const auto returns = SpanOf(targets.returns);
  const Fit fit = ComputeFit(values, returns, kReturnVarianceFloor);
  m["explained_variance"] = fit.explained_variance;
  m["value_nrmse"] = fit.nrmse;
  m["value_variance_low"] = fit.low ? 1.0 : 0.0;
  const ValueMetrics value =
      ComputeValueMetrics(values, returns, SpanOf(targets.td_errors));
  m["value_correlation"] = value.correlation;
  m["td_mean"] = value.td_mean;
  m["td_std"] = value.td_deviation;
  m["bellman_error"] = value.bellman_error;
  m["return_p10"] = value.return_p10;
  m["return_p50"] = value.return_p50;
  m["return_p90"] = value.return_p90;
  m["return_variance"] = value.return_variance;
  m["return_skewness"] = value.return_skewness;
  m["advantage_mean"] = targets.moments.mean();
  m["advantage_std"] = targets.moments.deviation();
  m["advantage_floored"] = targets.moments.floored() ? 1.0 : 0.0;
}

void AddContributionMetrics(const LossInputs& inputs, Metrics* metrics) {
  if (!inputs.contributions.defined() ||
      !inputs.contribution_targets.defined()) {
    return;
  }
  const at::Tensor active = inputs.contribution_active;
  const at::Tensor predicted =
      inputs.contributions.detach().masked_select(active).contiguous();
  const at::Tensor measured =
      inputs.contribution_targets.masked_select(active).contiguous();
  if (predicted.numel() < 2) return;
  const Fit fit = ComputeFit(SpanOf(predicted), SpanOf(measured),
                             RelativeVarianceFloor(SpanOf(measured)));
  (*metrics)["contribution_explained_variance"] = fit.explained_variance;
  (*metrics)["contribution_nrmse"] = fit.nrmse;
}

void AddBatchMetrics(const BatchTotals& totals, Metrics* metrics) {
  (*metrics)["forced_share"] =
      1.0 - totals.unforced_steps / std::max(totals.valid_steps, 1.0);
}

void AddOutcomeMetrics(absl::Span<const Trajectory> trajectories,
                       const TrajectoryBatch& batch, int64_t version,
                       Metrics* metrics) {
  double total_return = 0;
  for (const Trajectory& row : trajectories) {
    total_return += row.rewards.sum(at::kDouble).item<double>();
  }
  (*metrics)["episode_return"] =
      total_return / static_cast<double>(trajectories.size());
  (*metrics)["version_lag"] =
      static_cast<double>(version) - batch.Flatten(batch.policy_versions)
                                         .to(at::kDouble)
                                         .mean()
                                         .item<double>();
}

void AddStateMetrics(const LstmHealth& health, Metrics* metrics) {
  const auto add = [metrics](const std::string& part, const StateSize& size) {
    const std::string prefix = "lstm_" + part;
    (*metrics)[prefix + "_l2_total"] = size.l2;
    (*metrics)[prefix + "_rms"] = size.rms;
    (*metrics)[prefix + "_env_rms_mean"] = size.row_rms_mean;
    (*metrics)[prefix + "_env_rms_max"] = size.row_rms_max;
    (*metrics)[prefix + "_max"] = size.max;
  };
  add("h", health.h);
  add("c", health.c);
}

void AddGradientMetrics(const policy::RecurrentPolicy& network,
                        Metrics* metrics) {
  for (const policy::HeadSpec& head : network.spec().heads) {
    std::vector<at::Tensor> gradients;
    bool learnable = false;
    for (const at::Tensor& parameter : network.HeadParameters(head.name)) {
      learnable = learnable || parameter.requires_grad();
      if (parameter.grad().defined()) gradients.push_back(parameter.grad());
    }
    const double norm = GlobalNorm(gradients);
    double state = std::isfinite(norm) ? 0 : 1;
    if (gradients.empty()) state = learnable ? 2 : 3;
    (*metrics)["gradient_norm." + head.name] = norm;
    (*metrics)["gradient_state." + head.name] = state;
  }
}

void AddQMetrics(const policy::RecurrentPolicy& network,
                 const policy::EvaluationInputs& inputs, Metrics* metrics) {
  const policy::PolicySpec& spec = network.spec();
  if (spec.q_head.empty()) return;
  const c10::NoGradGuard no_grad;
  policy::RecurrentState state;
  if (inputs.state.h.defined()) {
    state.h = inputs.state.h.slice(1, 0, 1);
    state.c = inputs.state.c.slice(1, 0, 1);
  }
  const policy::NetworkWeights weights = network.Weights();
  const policy::TrunkOutput trunk =
      policy::Trunk(weights, FirstStep(inputs.observations),
                    FirstStep(inputs.categorical), state);
  at::Tensor q =
      policy::QAllChoices(weights, trunk.trunk.reshape({1, spec.hidden_dim}))
          .flatten();
  if (inputs.action_masks.defined()) {
    const int64_t k = spec.HeadIndex(spec.q_head);
    const int64_t offset = network.layout().offset(k);
    q = q.masked_select(FirstStep(inputs.action_masks)
                            .flatten()
                            .slice(0, offset, offset + spec.heads[k].size));
  }
  if (q.numel() == 0) return;
  (*metrics)["q_variance"] = q.numel() > 1 ? q.var().item<double>() : 0.0;
  (*metrics)["q_spread"] = (q.max() - q.min()).item<double>();
}

}  // namespace esper::ppo
