#include "core/env/governor.h"

#include <cmath>
#include <numeric>

#include "core/error.h"

namespace esper::env {
namespace {

constexpr int64_t kSmallestWindow = 10;
// A host has lost what it knew when it is back within 6.5 % of guessing after
// its mean loss had been below 60 % of that.
constexpr double kLearntShare = 0.6;
constexpr double kGuessBand = 0.065;

}  // namespace

const char* PanicReasonName(PanicReason reason) {
  switch (reason) {
    case PanicReason::kNan:
      return "governor_nan";
    case PanicReason::kLobotomy:
      return "governor_lobotomy";
    case PanicReason::kDivergence:
      return "governor_divergence";
    case PanicReason::kNone:
      break;
  }
  return "";
}

absl::StatusOr<Governor> Governor::Create(const Options& options) {
  const bool in_range =
      options.history_window >= kSmallestWindow && options.min_samples >= 1 &&
      options.min_samples <= options.history_window &&
      options.panics_in_a_row >= 1 && options.snapshot_interval >= 1 &&
      options.sensitivity >= 0 && options.multiplier >= 0 &&
      options.penalty >= 0 && options.random_guess_loss > 0;
  if (in_range) return Governor(options);
  ErrorDetail detail;
  detail.reason = "MALFORMED_REQUEST";
  detail.field = "governor";
  return MakeStatus(absl::StatusCode::kInvalidArgument, detail,
                    "A governor needs a history of at least 10 epochs, samples "
                    "within it, and no negative option.");
}

GovernorVerdict Governor::Check(double val_loss) {
  if (!std::isfinite(val_loss)) {
    return {true, PanicReason::kNan, anomalies_in_a_row_};
  }
  const auto n = static_cast<int64_t>(losses_.size());
  if (n < options_.min_samples) {
    Append(val_loss);
    return {false, PanicReason::kNone, anomalies_in_a_row_};
  }
  const double count = static_cast<double>(n);
  const double mean =
      std::accumulate(losses_.begin(), losses_.end(), 0.0) / count;
  const double guess = options_.random_guess_loss;
  if (mean < kLearntShare * guess &&
      std::abs(val_loss - guess) < kGuessBand * guess) {
    return {true, PanicReason::kLobotomy, anomalies_in_a_row_};
  }
  double variance = 0;
  for (double loss : losses_) variance += (loss - mean) * (loss - mean);
  const double deviation = std::sqrt(variance / count);
  const bool anomaly = val_loss > options_.absolute_threshold &&
                       val_loss > mean + options_.sensitivity * deviation &&
                       val_loss > options_.multiplier * mean;
  if (!anomaly) {
    Append(val_loss);
    anomalies_in_a_row_ = 0;
    return {false, PanicReason::kNone, 0};
  }
  ++anomalies_in_a_row_;
  return {anomalies_in_a_row_ >= options_.panics_in_a_row,
          PanicReason::kDivergence, anomalies_in_a_row_};
}

bool Governor::TakeSnapshotDue(int64_t epoch) {
  const bool due =
      snapshot_requested_ || epoch % options_.snapshot_interval == 0;
  snapshot_requested_ = false;
  return due;
}

void Governor::OnRollback() { anomalies_in_a_row_ = 0; }

void Governor::Reset() {
  losses_.clear();
  anomalies_in_a_row_ = 0;
  snapshot_requested_ = false;
}

void Governor::Append(double loss) {
  losses_.push_back(loss);
  while (static_cast<int64_t>(losses_.size()) > options_.history_window) {
    losses_.pop_front();
  }
}

}  // namespace esper::env
