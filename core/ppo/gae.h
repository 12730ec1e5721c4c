#ifndef ESPER_CORE_PPO_GAE_H_
#define ESPER_CORE_PPO_GAE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace esper::ppo {

// What follows a step of a row.
enum class StepEnd : uint8_t {
  kNone,        // The next step of the row.
  kTerminated,  // Nothing: the future is worth 0.
  kTruncated,   // A future that was cut off: worth the step's bootstrap value.
};

// Which ends the estimator honours.
enum class EndHandling : uint8_t {
  kEveryEnd,  // Every end cuts the row, wherever it lies.
  // As the reference implementation: a truncation before the last step is
  // walked through as if the row went on, and its bootstrap is ignored.
  kUpstream,
};

struct GaeOptions {
  double gamma = 0.995;   // Discount, in (0, 1].
  double lambda = 0.98;   // In [0, 1]; 0 is one-step TD, 1 is Monte Carlo.
  double value_unit = 1;  // Factor on values and bootstraps, > 0.
  EndHandling ends = EndHandling::kEveryEnd;
};

// One row of n steps in time order; all spans have length n. A row that stops
// without an end is treated as terminated there.
struct GaeRow {
  absl::Span<const float> rewards;     // Units of the advantage.
  absl::Span<const float> values;      // V(s_t); times `value_unit`.
  absl::Span<const float> bootstraps;  // Read where the end is kTruncated.
  absl::Span<const StepEnd> ends;
};

// Generalised advantage estimates of a row (Schulman et al., 2016):
//   delta_t = r_t + gamma next_t - v_t
//   A_t     = delta_t + gamma lambda A_{t+1}    (A_{t+1} = 0 behind an end)
//   R_t     = A_t + v_t
struct GaeResult {
  std::vector<float> td_errors;
  std::vector<float> advantages;  // Not normalised.
  std::vector<float> returns;     // Targets of the value function.
};

// Throws InvalidArgumentError (BAD_SHAPE) if the spans differ in length.
// Accumulates in double. Thread-safe.
GaeResult ComputeGae(const GaeRow& row, const GaeOptions& options);

// Mean and deviation of advantages over a batch, mergeable, so that a batch
// split into parts is normalised as a whole.
class AdvantageMoments {
 public:
  static constexpr double kDeviationFloor = 0.1;

  AdvantageMoments() = default;
  AdvantageMoments(double count, double mean, double deviation);

  void Add(double advantage);
  void Merge(const AdvantageMoments& other);

  double count() const { return count_; }
  double mean() const { return mean_; }
  double deviation() const;  // Population deviation, not floored.
  bool floored() const { return deviation() < kDeviationFloor; }

  // (advantage - mean) / (max(deviation, floor) + 1e-8).
  double Normalize(double advantage) const;

 private:
  double count_ = 0;
  double mean_ = 0;
  double m2_ = 0;  // Sum of squared differences from the mean.
};

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_GAE_H_
