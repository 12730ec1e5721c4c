#include "core/stats/mean_interval.h"

#include <cmath>
#include <limits>

#include "core/stats/student_t.h"

namespace esper::stats {

MeanInterval MeanWithInterval(const std::vector<double>& samples,
                              double confidence) {
  MeanInterval result;
  result.count = static_cast<int64_t>(samples.size());
  double squares = 0;  // Of deviations, by Welford's update.
  int64_t n = 0;
  for (const double sample : samples) {
    const double delta = sample - result.mean;
    result.mean += delta / static_cast<double>(++n);
    squares += delta * (sample - result.mean);
  }
  double reach = std::numeric_limits<double>::infinity();
  if (n > 1) {
    const auto degrees = static_cast<double>(n - 1);
    result.deviation = std::sqrt(squares / degrees);
    result.standard_error =
        result.deviation / std::sqrt(static_cast<double>(n));
    reach =
        StudentTQuantile((1 + confidence) / 2, degrees) * result.standard_error;
  }
  result.low = result.mean - reach;
  result.high = result.mean + reach;
  return result;
}

}  // namespace esper::stats
