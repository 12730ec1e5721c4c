#ifndef ESPER_CORE_STATS_PAIRED_COMPARISON_H_
#define ESPER_CORE_STATS_PAIRED_COMPARISON_H_

#include <vector>

#include "absl/status/statusor.h"
#include "core/stats/mean_interval.h"

namespace esper::stats {

// Two variants measured under the same conditions, pair by pair (the same seed
// for both), so that what the conditions do to both cancels in the difference.
//
// An immutable value.
class PairedComparison {
 public:
  static constexpr int kMinPairs = 5;

  enum class Verdict { kInconclusive, kFirstHigher, kSecondHigher };

  // `first[i]` and `second[i]` share their conditions. `confidence` in (0, 1)
  // is that of the intervals; a difference is called one if its two-sided
  // p-value is below 1 - confidence.
  // INVALID_ARGUMENT for unequal lengths, fewer than `kMinPairs` pairs, a
  // value that is not finite (naming its place), or `confidence` out of range.
  static absl::StatusOr<PairedComparison> Create(
      const std::vector<double>& first, const std::vector<double>& second,
      double confidence = 0.95);

  const MeanInterval& first() const { return first_; }
  const MeanInterval& second() const { return second_; }
  // Of second - first.
  const MeanInterval& difference() const { return difference_; }
  // Student's t of the differences; 0 if all of them are 0, and infinite if all
  // are equal otherwise.
  double t_statistic() const { return t_statistic_; }
  double p_value() const { return p_value_; }  // Two-sided.
  Verdict verdict() const { return verdict_; }

 private:
  PairedComparison() = default;

  MeanInterval first_;
  MeanInterval second_;
  MeanInterval difference_;
  double t_statistic_ = 0;
  double p_value_ = 1;
  Verdict verdict_ = Verdict::kInconclusive;
};

// "inconclusive", "first", "second".
const char* VerdictName(PairedComparison::Verdict verdict);

}  // namespace esper::stats
#endif  // ESPER_CORE_STATS_PAIRED_COMPARISON_H_
