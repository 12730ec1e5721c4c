#ifndef ESPER_CORE_PPO_VTRACE_H_
#define ESPER_CORE_PPO_VTRACE_H_

#include <vector>

#include "absl/types/span.h"
#include "core/ppo/gae.h"

namespace esper::ppo {

struct VtraceOptions {
  double gamma = 0.995;  // Discount, in (0, 1].
  double rho_bar = 1.0;  // Bound on the ratio in the fixed point, > 0.
  double c_bar = 1.0;    // Bound on the ratio in the trace, in (0, rho_bar].
  double lambda = 1.0;   // Factor on the trace, in [0, 1].
};

// Episodes of n steps altogether, one behind the other, each in time order; all
// spans have length n. A row that stops without an end is terminated there.
struct VtraceRow {
  // log pi(a_t) - log mu(a_t), nats; finite.
  absl::Span<const float> log_ratios;
  absl::Span<const float> rewards;
  absl::Span<const float> values;      // V(s_t) under pi, units of rewards.
  absl::Span<const float> bootstraps;  // Read where the end is kTruncated.
  absl::Span<const StepEnd> ends;      // Every end cuts the row.
};

// V-trace targets and advantages (Espeholt et al. 2018, "IMPALA", equations 1
// and 4, remark 2), with V' the value behind a step, 0 or the bootstrap behind
// an end, and v' the target behind it, V' behind an end:
//   rho_t = min(rho_bar, ratio_t), c_t = lambda min(c_bar, ratio_t)
//   v_t   = V_t + rho_t (r_t + gamma V' - V_t) + gamma c_t (v' - V')
//   q_t   = r_t + gamma v'
//   A_t   = rho_t (q_t - V_t)
// With all ratios 1 and lambda 1, v_t is the discounted return.
struct VtraceResult {
  std::vector<float> targets;     // v_t.
  std::vector<float> q_targets;   // q_t.
  std::vector<float> advantages;  // A_t.
  std::vector<float> td_errors;   // r_t + gamma V' - V_t.
  std::vector<float> ratios;      // Not clipped.
};

// Throws InvalidArgumentError (BAD_SHAPE) if the spans differ in length.
// Accumulates in double. Thread-safe.
VtraceResult ComputeVtrace(const VtraceRow& row, const VtraceOptions& options);

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_VTRACE_H_
