#include "core/slot/metrics.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace esper::slot {
namespace {

double Normalized(double points) {
  return std::min(10.0, std::max(-10.0, points)) / 10.0;
}

absl::Status NotFinite(const char* what, double value) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, " must be finite, got ", value, "."));
}

}  // namespace

absl::Status SeedMetrics::RecordAccuracy(double accuracy) {
  if (!std::isfinite(accuracy)) return NotFinite("Accuracy", accuracy);
  if (epochs_total == 0) {
    initial_accuracy = accuracy;
    stage_start_accuracy = accuracy;
  }
  current_accuracy = accuracy;
  best_accuracy = std::max(best_accuracy, accuracy);
  ++epochs_total;
  ++epochs_in_stage;
  return absl::OkStatus();
}

absl::Status SeedMetrics::RecordContribution(double value) {
  if (!std::isfinite(value)) return NotFinite("Contribution", value);
  if (previous_contribution) {
    contribution_velocity =
        0.7 * contribution_velocity + 0.3 * (value - *previous_contribution);
  }
  previous_contribution = value;
  contribution = value;
  return absl::OkStatus();
}

double SeedMetrics::total_improvement() const {
  return current_accuracy - initial_accuracy;
}

double SeedMetrics::improvement_since_stage_start() const {
  return current_accuracy - stage_start_accuracy;
}

double SeedMetrics::normalized_total_improvement() const {
  return Normalized(total_improvement());
}

double SeedMetrics::normalized_stage_improvement() const {
  return Normalized(improvement_since_stage_start());
}

double SeedMetrics::blending_delta() const {
  return blending_started ? current_accuracy - blending_start_accuracy : 0;
}

}  // namespace esper::slot
