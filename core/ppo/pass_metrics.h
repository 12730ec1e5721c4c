#ifndef ESPER_CORE_PPO_PASS_METRICS_H_
#define ESPER_CORE_PPO_PASS_METRICS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/types/span.h"
#include "core/policy/evaluator.h"
#include "core/policy/policy_spec.h"
#include "core/policy/recurrent_policy.h"
#include "core/ppo/losses.h"
#include "core/ppo/lstm_health.h"
#include "core/ppo/pass.h"
#include "core/ppo/trajectory.h"

// The numbers that a pass reports, by name, out of what it computed. Pure
// functions; none draws a random number or touches a gradient.
namespace esper::ppo {

using Metrics = std::map<std::string, double>;

// approx_kl, clip_fraction[_above|_below], ratio_{mean,max,min,std},
// ratio_max.<head>, clip_fraction.<head>. A deviation that does not exist (one
// step) is left out.
void AddRatioMetrics(const policy::PolicySpec& spec,
                     const RatioStatistics& ratios, Metrics* metrics);

// mean_entropy, over the heads that were available at all; per head
//   entropy.<head>       mean over unforced steps it was available in,
//   entropy_used.<head>  mean over unforced steps that used it,
//   share_used.<head>    share of steps that used it, unforced,
//   share_choice.<head>  share of steps that used it with several entries
//                        allowed.
// masks: bool [N, A] of the valid steps.
void AddHeadMetrics(const policy::PolicySpec& spec, const LossInputs& inputs,
                    const at::Tensor& masks, const BatchTotals& totals,
                    Metrics* metrics);

// explained_variance, value_nrmse, value_variance_low, value_correlation,
// td_{mean,std}, bellman_error, return_{p10,p50,p90,variance,skewness},
// advantage_{mean,std,floored}.
void AddValueMetrics(const PassTargets& targets, Metrics* metrics);

// contribution_explained_variance, contribution_nrmse, over active targets;
// nothing with fewer than two.
void AddContributionMetrics(const LossInputs& inputs, Metrics* metrics);

// forced_share.
void AddBatchMetrics(const BatchTotals& totals, Metrics* metrics);

// episode_return (raw, mean over rows) and version_lag (mean over steps, behind
// `version`).
void AddOutcomeMetrics(absl::Span<const Trajectory> trajectories,
                       const TrajectoryBatch& batch, int64_t version,
                       Metrics* metrics);

// lstm_{h,c}_{l2_total,rms,env_rms_mean,env_rms_max,max}.
void AddStateMetrics(const LstmHealth& health, Metrics* metrics);

// gradient_norm.<head> of each head's own network, and gradient_state.<head>:
// 0 finite, 1 not finite, 2 missing, 3 not learnable (frozen).
void AddGradientMetrics(const policy::RecurrentPolicy& network,
                        Metrics* metrics);

// q_variance (of a sample) and q_spread (largest minus smallest) over the
// allowed choices of the first step of the first row; nothing without a Q.
void AddQMetrics(const policy::RecurrentPolicy& network,
                 const policy::EvaluationInputs& inputs, Metrics* metrics);

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_PASS_METRICS_H_
