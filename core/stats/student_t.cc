#include "core/stats/student_t.h"

#include <cmath>
#include <limits>

namespace esper::stats {
namespace {

// Continued fraction of I_x(a, b) by Lentz's method.
double BetaFraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;
  constexpr double kPrecision = 1e-15;
  constexpr int kMaxTerms = 10000;
  const auto nonzero = [](double v) { return std::abs(v) < kTiny ? kTiny : v; };
  double c = 1;
  double d = 1 / nonzero(1 - (a + b) * x / (a + 1));
  double value = d;
  for (int m = 1; m <= kMaxTerms; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / nonzero(1 + even * d);
    c = nonzero(1 + even / c);
    value *= d * c;
    const double odd =
        -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / nonzero(1 + odd * d);
    c = nonzero(1 + odd / c);
    value *= d * c;
    if (std::abs(d * c - 1) < kPrecision) break;
  }
  return value;
}

// Regularised incomplete beta function I_x(a, b), x in [0, 1].
double IncompleteBeta(double a, double b, double x) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  const double front =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) +
               a * std::log(x) + b * std::log1p(-x));
  // The fraction converges fast on this side of the mean only.
  if (x < (a + 1) / (a + b + 2)) return front * BetaFraction(a, b, x) / a;
  return 1 - front * BetaFraction(b, a, 1 - x) / b;
}

}  // namespace

double StudentTTwoSided(double t, double degrees) {
  if (std::isinf(t)) return 0;
  return IncompleteBeta(degrees / 2, 0.5, degrees / (degrees + t * t));
}

double StudentTCdf(double t, double degrees) {
  const double tail = StudentTTwoSided(t, degrees) / 2;
  return t > 0 ? 1 - tail : tail;
}

double StudentTQuantile(double p, double degrees) {
  if (p == 0.5) return 0;
  if (p < 0.5) return -StudentTQuantile(1 - p, degrees);
  double low = 0;
  double high = 1;
  while (StudentTCdf(high, degrees) < p &&
         high < std::numeric_limits<double>::max() / 4) {
    low = high;
    high *= 2;
  }
  while (high - low > 1e-13 * high) {
    const double middle = low + (high - low) / 2;
    (StudentTCdf(middle, degrees) < p ? low : high) = middle;
  }
  return low + (high - low) / 2;
}

}  // namespace esper::stats
