#ifndef ESPER_CORE_PPO_DIAGNOSTICS_H_
#define ESPER_CORE_PPO_DIAGNOSTICS_H_

#include "absl/types/span.h"

namespace esper::ppo {

// How well predictions explain targets, with a floor under the targets'
// variance so that a nearly constant target does not look like a failure.
// Variances are those of samples (n - 1); fewer than two pairs give zeros.
struct Fit {
  double explained_variance = 0;  // 1 - var(target - p) / max(var, floor).
  double nrmse = 0;     // std(target - p) / (std(target) + sqrt(floor)).
  double variance = 0;  // Of the targets.
  bool low = false;     // The floor was in force.
};

// For returns: floor 1.
constexpr double kReturnVarianceFloor = 1.0;
Fit ComputeFit(absl::Span<const float> predictions,
               absl::Span<const float> targets, double floor);
// max(minimum, fraction x population variance of the targets): the floor for
// contribution targets, whose size depends on the task.
double RelativeVarianceFloor(absl::Span<const float> targets,
                             double fraction = 0.05, double minimum = 0.01);

// Health of the value function over stored steps. Moments are those of the
// population.
struct ValueMetrics {
  double correlation = 0;  // Of V and return; 0 if either hardly varies.
  double td_mean = 0;
  double td_deviation = 0;
  double bellman_error = 0;  // Mean absolute TD error.
  double return_p10 = 0;     // Quantiles, interpolated linearly.
  double return_p50 = 0;
  double return_p90 = 0;
  double return_variance = 0;
  double return_skewness = 0;  // 0 if the returns hardly vary.
};

// Spans of one length; zeros if that is 0.
ValueMetrics ComputeValueMetrics(absl::Span<const float> values,
                                 absl::Span<const float> returns,
                                 absl::Span<const float> td_errors);

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_DIAGNOSTICS_H_
