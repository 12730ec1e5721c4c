#include "core/ppo/gae.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/error.h"

namespace esper::ppo {

GaeResult ComputeGae(const GaeRow& row, const GaeOptions& options) {
  const size_t n = row.rewards.size();
  if (row.values.size() != n || row.bootstraps.size() != n ||
      row.ends.size() != n) {
    throw ShapeError(
        "row", absl::StrCat("spans of one length (", n, ")"),
        absl::StrCat("values ", row.values.size(), ", bootstraps ",
                     row.bootstraps.size(), ", ends ", row.ends.size()));
  }
  GaeResult result;
  result.td_errors.resize(n);
  result.advantages.resize(n);
  result.returns.resize(n);
  double advantage = 0;
  for (size_t i = n; i-- > 0;) {
    StepEnd end = row.ends[i];
    if (i + 1 == n) {
      // A row that just stops has no known future.
      if (end == StepEnd::kNone) end = StepEnd::kTerminated;
    } else if (end == StepEnd::kTruncated &&
               options.ends == EndHandling::kUpstream) {
      end = StepEnd::kNone;
    }
    double next = 0;
    if (end == StepEnd::kNone) next = row.values[i + 1];
    if (end == StepEnd::kTruncated) next = row.bootstraps[i];
    const double value = row.values[i] * options.value_unit;
    const double delta =
        row.rewards[i] + options.gamma * next * options.value_unit - value;
    if (end != StepEnd::kNone) advantage = 0;
    advantage = delta + options.gamma * options.lambda * advantage;
    result.td_errors[i] = static_cast<float>(delta);
    result.advantages[i] = static_cast<float>(advantage);
    result.returns[i] = static_cast<float>(advantage + value);
  }
  return result;
}

AdvantageMoments::AdvantageMoments(double count, double mean, double deviation)
    : count_(count), mean_(mean), m2_(deviation * deviation * count) {}

void AdvantageMoments::Add(double advantage) {
  count_ += 1;
  const double delta = advantage - mean_;
  mean_ += delta / count_;
  m2_ += delta * (advantage - mean_);
}

void AdvantageMoments::Merge(const AdvantageMoments& other) {
  if (other.count_ == 0) return;
  const double total = count_ + other.count_;
  const double delta = other.mean_ - mean_;
  mean_ += delta * other.count_ / total;
  m2_ += other.m2_ + delta * delta * count_ * other.count_ / total;
  count_ = total;
}

double AdvantageMoments::deviation() const {
  return count_ > 0 ? std::sqrt(std::max(m2_ / count_, 0.0)) : 0.0;
}

double AdvantageMoments::Normalize(double advantage) const {
  return (advantage - mean_) / (std::max(deviation(), kDeviationFloor) + 1e-8);
}

}  // namespace esper::ppo
