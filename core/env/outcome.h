#ifndef ESPER_CORE_ENV_OUTCOME_H_
#define ESPER_CORE_ENV_OUTCOME_H_

#include <cstdint>
#include <string>
#include <vector>

namespace esper::env {

inline constexpr double kSuccessAccuracy = 80.0;          // Percent.
inline constexpr double kMinFossilizeContribution = 1.0;  // Accuracy points.

// One finished episode in a few numbers.
struct EpisodeOutcome {
  double final_accuracy = 0;  // Percent.
  double param_ratio = 1;     // Total parameters per host parameter.
  int64_t fossilized = 0;
  int64_t contributing = 0;
  double episode_return = 0;  // Sum of raw rewards.
  double stability = 1;       // 1 / (1 + variance of the last 20 rewards).
  double roi = 0;             // Accuracy per parameter ratio.
  std::string label;          // "success" or "timeout".
};

// `rewards`: raw, one per step, in order.
EpisodeOutcome SummarizeEpisode(double final_accuracy, int64_t total_params,
                                int64_t host_params, int64_t fossilized,
                                int64_t contributing,
                                const std::vector<double>& rewards);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_OUTCOME_H_
