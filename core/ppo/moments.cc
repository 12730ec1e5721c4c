#include "core/ppo/moments.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "core/error.h"

namespace esper::ppo {
namespace {

absl::Status BadMoments(const std::string& message) {
  ErrorDetail detail;
  detail.reason = "CORRUPT_CHECKPOINT";
  detail.tensor = "moments";
  return MakeStatus(absl::StatusCode::kInvalidArgument, detail, message);
}

}  // namespace

Moments Moments::Initial(int64_t width, double count) {
  Moments moments;
  moments.mean.assign(width, 0.0);
  moments.variance.assign(width, 1.0);
  moments.count = count;
  return moments;
}

absl::Status Moments::Check(int64_t width) const {
  if (mean.size() != static_cast<size_t>(width) ||
      variance.size() != static_cast<size_t>(width)) {
    return BadMoments(absl::StrCat(
        "Statistics of ", width, " features expected, got ", mean.size(),
        " means and ", variance.size(), " variances."));
  }
  bool good = std::isfinite(count) && count >= 0;
  for (double value : mean) good = good && std::isfinite(value);
  for (double value : variance) {
    good = good && std::isfinite(value) && value >= 0;
  }
  if (good) return absl::OkStatus();
  return BadMoments(
      "Statistics hold a number that is not finite or a negative variance.");
}

Averaging Averaging::Exact() {
  return {std::numeric_limits<double>::infinity(), 0};
}

void AddBatch(const Moments& batch, const Averaging& averaging,
              Moments& moments) {
  const double n = batch.count;
  if (n <= 0) return;
  // Weight of what was known; the rest is the batch's.
  double keep = moments.count / (moments.count + n);
  if (moments.count >= averaging.exact_rows) {
    keep = averaging.momentum > 0
               ? averaging.momentum
               : averaging.exact_rows / (averaging.exact_rows + n);
  }
  for (size_t i = 0; i < moments.mean.size(); ++i) {
    const double delta = batch.mean[i] - moments.mean[i];
    moments.variance[i] = keep * moments.variance[i] +
                          (1 - keep) * batch.variance[i] +
                          keep * (1 - keep) * delta * delta;
    moments.mean[i] += (1 - keep) * delta;
  }
  moments.count += n;
}

}  // namespace esper::ppo
