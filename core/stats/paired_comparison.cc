#include "core/stats/paired_comparison.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "core/stats/student_t.h"

namespace esper::stats {

absl::StatusOr<PairedComparison> PairedComparison::Create(
    const std::vector<double>& first, const std::vector<double>& second,
    double confidence) {
  if (first.size() != second.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("paired comparison: ", first.size(), " values against ",
                     second.size(), "; every value needs its pair"));
  }
  if (first.size() < kMinPairs) {
    return absl::InvalidArgumentError(
        absl::StrCat("paired comparison: ", first.size(), " pairs; at least ",
                     static_cast<int>(kMinPairs), " are needed"));
  }
  if (!(confidence > 0) || !(confidence < 1)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "paired comparison: confidence ", confidence, " is not in (0, 1)"));
  }
  std::vector<double> differences;
  for (size_t i = 0; i < first.size(); ++i) {
    if (!std::isfinite(first[i]) || !std::isfinite(second[i])) {
      return absl::InvalidArgumentError(
          absl::StrCat("paired comparison: pair ", i, " is not finite"));
    }
    differences.push_back(second[i] - first[i]);
  }
  PairedComparison result;
  result.first_ = MeanWithInterval(first, confidence);
  result.second_ = MeanWithInterval(second, confidence);
  result.difference_ = MeanWithInterval(differences, confidence);
  const double mean = result.difference_.mean;
  const double error = result.difference_.standard_error;
  if (error > 0) {
    result.t_statistic_ = mean / error;
  } else if (mean != 0) {
    result.t_statistic_ =
        std::copysign(std::numeric_limits<double>::infinity(), mean);
  }
  result.p_value_ = StudentTTwoSided(
      result.t_statistic_, static_cast<double>(differences.size() - 1));
  if (result.p_value_ < 1 - confidence) {
    result.verdict_ = mean > 0 ? Verdict::kSecondHigher : Verdict::kFirstHigher;
  }
  return result;
}

const char* VerdictName(PairedComparison::Verdict verdict) {
  switch (verdict) {
    case PairedComparison::Verdict::kFirstHigher:
      return "first";
    case PairedComparison::Verdict::kSecondHigher:
      return "second";
    case PairedComparison::Verdict::kInconclusive:
      break;
  }
  return "inconclusive";
}

}  // namespace esper::stats
