#include "core/ppo/vtrace.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/error.h"

namespace esper::ppo {

VtraceResult ComputeVtrace(const VtraceRow& row, const VtraceOptions& options) {
  const size_t n = row.rewards.size();
  if (row.log_ratios.size() != n || row.values.size() != n ||
      row.bootstraps.size() != n || row.ends.size() != n) {
    throw ShapeError(
        "row", absl::StrCat("spans of one length (", n, ")"),
        absl::StrCat("log_ratios ", row.log_ratios.size(), ", values ",
                     row.values.size(), ", bootstraps ", row.bootstraps.size(),
                     ", ends ", row.ends.size()));
  }
  VtraceResult result;
  for (std::vector<float>* numbers :
       {&result.targets, &result.q_targets, &result.advantages,
        &result.td_errors, &result.ratios}) {
    numbers->resize(n);
  }
  double next_value = 0;   // V' of the step at hand.
  double next_target = 0;  // v' of it.
  for (size_t i = n; i-- > 0;) {
    if (row.ends[i] == StepEnd::kTerminated) {
      next_value = next_target = 0;
    } else if (row.ends[i] == StepEnd::kTruncated) {
      next_value = next_target = row.bootstraps[i];
    }
    const double value = row.values[i];
    const double ratio = std::exp(static_cast<double>(row.log_ratios[i]));
    const double rho = std::min(options.rho_bar, ratio);
    const double trace = options.lambda * std::min(options.c_bar, ratio);
    const double td = row.rewards[i] + options.gamma * next_value - value;
    const double q = row.rewards[i] + options.gamma * next_target;
    const double target =
        value + rho * td + options.gamma * trace * (next_target - next_value);
    result.targets[i] = static_cast<float>(target);
    result.q_targets[i] = static_cast<float>(q);
    result.advantages[i] = static_cast<float>(rho * (q - value));
    result.td_errors[i] = static_cast<float>(td);
    result.ratios[i] = static_cast<float>(ratio);
    next_value = value;
    next_target = target;
  }
  return result;
}

}  // namespace esper::ppo
