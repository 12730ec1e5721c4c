#ifndef ESPER_CORE_PPO_MOMENTS_H_
#define ESPER_CORE_PPO_MOMENTS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace esper::ppo {

// Running mean and population variance of D features: a plain value to store.
struct Moments {
  std::vector<double> mean;
  std::vector<double> variance;
  double count = 0;  // Rows seen, plus the weight of an initial guess.

  static Moments Initial(int64_t width, double count);
  // INVALID_ARGUMENT unless both vectors have `width` finite entries, no
  // variance is negative and the count is finite and not negative.
  absl::Status Check(int64_t width) const;
};

// How a batch of n rows enters the statistics.
struct Averaging {
  // Below this many rows every row has the same weight (parallel Welford), so
  // the result does not depend on how rows were split into batches.
  double exact_rows = 0;
  // From there on: the weight of what was known, in (0, 1), per batch. Unset
  // (0): `exact_rows / (exact_rows + n)`, as if only the last exact_rows rows
  // counted.
  double momentum = 0;

  static Averaging Exact();
  static Averaging Momentum(double momentum) { return {0, momentum}; }
  static Averaging ExactThenCapped(double rows) { return {rows, 0}; }
  static Averaging ExactThenMomentum(double rows, double momentum) {
    return {rows, momentum};
  }
};

// Adds a batch given by its own moments (batch.count rows, all weights equal):
//   exact     Chan's parallel form;
//   momentum  var = m var + (1-m) var_b + m (1-m) (mean_b - mean)^2,
//             mean = m mean + (1-m) mean_b.
// An empty batch is ignored. Widths must agree.
void AddBatch(const Moments& batch, const Averaging& averaging,
              Moments& moments);

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_MOMENTS_H_
