#ifndef ESPER_CORE_STATS_MEAN_INTERVAL_H_
#define ESPER_CORE_STATS_MEAN_INTERVAL_H_

#include <cstdint>
#include <vector>

namespace esper::stats {

// A mean and its two-sided confidence interval, from independent samples of a
// distribution that is taken to be normal (Student's t, n - 1 degrees).
struct MeanInterval {
  int64_t count = 0;
  double mean = 0;
  double deviation = 0;       // Standard deviation, n - 1 in the denominator.
  double standard_error = 0;  // Of the mean.
  double low = 0;
  double high = 0;
};

// `confidence` in (0, 1). Of fewer than two samples nothing is known of the
// spread: low and high are then the mean -+ infinity (0 -+ infinity of none).
MeanInterval MeanWithInterval(const std::vector<double>& samples,
                              double confidence = 0.95);

}  // namespace esper::stats
#endif  // ESPER_CORE_STATS_MEAN_INTERVAL_H_
