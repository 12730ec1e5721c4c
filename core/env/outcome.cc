#include "core/env/outcome.h"

#include <algorithm>
#include <numeric>

namespace esper::env {
namespace {

constexpr size_t kStabilityWindow = 20;  // Steps.

double Stability(const std::vector<double>& rewards) {
  const size_t n = std::min(rewards.size(), kStabilityWindow);
  if (n < 2) return 1.0;
  const auto begin = rewards.end() - static_cast<std::ptrdiff_t>(n);
  const auto count = static_cast<double>(n);
  const double mean = std::accumulate(begin, rewards.end(), 0.0) / count;
  double sum = 0;
  for (auto it = begin; it != rewards.end(); ++it) {
    sum += (*it - mean) * (*it - mean);
  }
  return 1.0 / (1.0 + sum / count);
}

}  // namespace

EpisodeOutcome SummarizeEpisode(double final_accuracy, int64_t total_params,
                                int64_t host_params, int64_t fossilized,
                                int64_t contributing,
                                const std::vector<double>& rewards) {
  EpisodeOutcome outcome;
  outcome.final_accuracy = final_accuracy;
  outcome.param_ratio = static_cast<double>(total_params) /
                        static_cast<double>(std::max<int64_t>(1, host_params));
  outcome.fossilized = fossilized;
  outcome.contributing = contributing;
  outcome.episode_return = std::accumulate(rewards.begin(), rewards.end(), 0.0);
  outcome.stability = Stability(rewards);
  outcome.roi =
      outcome.param_ratio > 0 ? final_accuracy / outcome.param_ratio : 0.0;
  outcome.label = final_accuracy >= kSuccessAccuracy ? "success" : "timeout";
  return outcome;
}

}  // namespace esper::env
