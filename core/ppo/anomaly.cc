#include "core/ppo/anomaly.h"

#include <cmath>
#include <utility>

namespace esper::ppo {

std::vector<std::string> DetectAnomalies(const AnomalyInputs& inputs,
                                         const AnomalyLimits& limits) {
  std::vector<std::string> names;
  if (!std::isfinite(inputs.ratio_max) || !std::isfinite(inputs.ratio_min)) {
    names.push_back("ratio_nan_inf");
  } else {
    if (inputs.ratio_max > limits.ratio_explosion) {
      names.push_back("ratio_explosion");
    }
    if (inputs.ratio_min < limits.ratio_collapse) {
      names.push_back("ratio_collapse");
    }
  }
  if (inputs.nonfinite_metric) names.push_back("numerical_instability");
  if (inputs.any_unforced && (inputs.value_loss > limits.value_loss ||
                              inputs.bellman_error > limits.bellman_error)) {
    names.push_back("value_collapse");
  }
  if (inputs.entropy.has_value()) {
    if (*inputs.entropy < limits.entropy_collapse) {
      names.push_back("entropy_collapse");
    } else if (*inputs.entropy < limits.entropy_low) {
      names.push_back("entropy_low");
    }
  }
  if (inputs.kl.has_value()) {
    if (*inputs.kl > limits.kl_extreme) {
      names.push_back("kl_extreme");
    } else if (*inputs.kl > limits.kl_spike) {
      names.push_back("kl_spike");
    }
  }
  return names;
}

double GradientHealth(double norm) {
  return norm >= 1e-7 && norm <= 100.0 ? 1.0 : 0.3;
}

HeadCollapseMonitor::HeadCollapseMonitor(std::map<std::string, double> limits,
                                         double otherwise)
    : limits_(std::move(limits)), otherwise_(otherwise) {}

std::optional<std::string> HeadCollapseMonitor::Update(const std::string& head,
                                                       double entropy) {
  if (!std::isfinite(entropy)) return "entropy_nan_inf_" + head;
  const auto it = limits_.find(head);
  const double limit = it == limits_.end() ? otherwise_ : it->second;
  int64_t& streak = streaks_[head];
  if (entropy < limit) {
    if (++streak >= kStreak) return "entropy_collapse_" + head;
  } else if (entropy > kRecovery * limit) {
    streak = 0;
  }
  return std::nullopt;
}

int64_t HeadCollapseMonitor::streak(const std::string& head) const {
  const auto it = streaks_.find(head);
  return it == streaks_.end() ? 0 : it->second;
}

std::map<std::string, double> HeadCollapseMonitor::DefaultLimits() {
  return {{"op", 0.08},          {"slot", 0.10},       {"blueprint", 0.05},
          {"style", 0.08},       {"tempo", 0.05},      {"alpha_target", 0.08},
          {"alpha_speed", 0.08}, {"alpha_curve", 0.08}};
}

}  // namespace esper::ppo
