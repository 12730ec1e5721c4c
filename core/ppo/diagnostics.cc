#include "core/ppo/diagnostics.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace esper::ppo {
namespace {

constexpr double kNoSpread = 1e-8;

double Mean(absl::Span<const float> x) {
  double sum = 0;
  for (float value : x) sum += value;
  return sum / static_cast<double>(x.size());
}

// Mean of (x - mean)^power.
double CentralMoment(absl::Span<const float> x, double mean, int power) {
  double sum = 0;
  for (float value : x) sum += std::pow(value - mean, power);
  return sum / static_cast<double>(x.size());
}

double Quantile(const std::vector<float>& sorted, double q) {
  const double position = q * static_cast<double>(sorted.size() - 1);
  const size_t low = static_cast<size_t>(position);
  const size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (position - low) * (sorted[high] - sorted[low]);
}

}  // namespace

Fit ComputeFit(absl::Span<const float> predictions,
               absl::Span<const float> targets, double floor) {
  Fit fit;
  const size_t n = targets.size();
  if (n < 2 || predictions.size() != n) return fit;
  std::vector<float> residuals(n);
  for (size_t i = 0; i < n; ++i) residuals[i] = targets[i] - predictions[i];
  const double to_sample = static_cast<double>(n) / static_cast<double>(n - 1);
  fit.variance = to_sample * CentralMoment(targets, Mean(targets), 2);
  const double unexplained =
      to_sample * CentralMoment(residuals, Mean(residuals), 2);
  fit.low = fit.variance < floor;
  fit.explained_variance = 1.0 - unexplained / std::max(fit.variance, floor);
  fit.nrmse =
      std::sqrt(unexplained) / (std::sqrt(fit.variance) + std::sqrt(floor));
  return fit;
}

double RelativeVarianceFloor(absl::Span<const float> targets, double fraction,
                             double minimum) {
  if (targets.empty()) return minimum;
  return std::max(minimum, fraction * CentralMoment(targets, Mean(targets), 2));
}

ValueMetrics ComputeValueMetrics(absl::Span<const float> values,
                                 absl::Span<const float> returns,
                                 absl::Span<const float> td_errors) {
  ValueMetrics metrics;
  const size_t n = returns.size();
  if (n == 0 || values.size() != n || td_errors.size() != n) return metrics;
  const double value_mean = Mean(values), return_mean = Mean(returns);
  const double value_deviation =
      std::sqrt(CentralMoment(values, value_mean, 2));
  metrics.return_variance = CentralMoment(returns, return_mean, 2);
  const double deviation = std::sqrt(metrics.return_variance);
  if (value_deviation > kNoSpread && deviation > kNoSpread) {
    double covariance = 0;
    for (size_t i = 0; i < n; ++i) {
      covariance += (values[i] - value_mean) * (returns[i] - return_mean);
    }
    metrics.correlation = covariance / n / (value_deviation * deviation);
  }
  if (deviation > kNoSpread) {
    metrics.return_skewness =
        CentralMoment(returns, return_mean, 3) / std::pow(deviation, 3);
  }
  metrics.td_mean = Mean(td_errors);
  metrics.td_deviation =
      std::sqrt(CentralMoment(td_errors, metrics.td_mean, 2));
  for (float error : td_errors) metrics.bellman_error += std::fabs(error) / n;
  std::vector<float> sorted(returns.begin(), returns.end());
  std::sort(sorted.begin(), sorted.end());
  metrics.return_p10 = Quantile(sorted, 0.1);
  metrics.return_p50 = Quantile(sorted, 0.5);
  metrics.return_p90 = Quantile(sorted, 0.9);
  return metrics;
}

}  // namespace esper::ppo
