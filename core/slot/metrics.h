#ifndef ESPER_CORE_SLOT_METRICS_H_
#define ESPER_CORE_SLOT_METRICS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"

namespace esper::slot {

// What is known of a seed's effect. Accuracies, contributions and improvements
// are percentage points on a scale of 0 to 100. A value; numbers only.
struct SeedMetrics {
  int64_t epochs_total = 0;
  int64_t epochs_in_stage = 0;
  double initial_accuracy = 0;
  double current_accuracy = 0;
  double best_accuracy = 0;
  double stage_start_accuracy = 0;
  double blending_start_accuracy = 0;
  bool blending_started = false;

  double gradient_norm_avg = 0;
  // Seed against host gradient intensity; absent while not measured.
  std::optional<double> gradient_ratio;
  // Running average behind `gradient_ratio`; survives an unmeasured epoch.
  std::optional<double> gradient_ratio_ema;

  double current_alpha = 0;
  int64_t alpha_ramp_step = 0;

  std::optional<double> contribution;
  std::optional<double> previous_contribution;
  double contribution_velocity = 0;  // Points per measurement, smoothed.

  double interaction_sum = 0;
  double boost_received = 0;
  double upstream_alpha_sum = 0;
  double downstream_alpha_sum = 0;

  int64_t host_param_count = 0;  // Trainable elements at germination.
  int64_t seed_param_count = 0;

  bool auto_pruned = false;
  std::string auto_prune_reason;

  // Takes in the validation accuracy of one epoch. INVALID_ARGUMENT, with
  // nothing changed, if not finite.
  absl::Status RecordAccuracy(double accuracy);
  // Takes in a measured contribution; velocity is 0.7 old + 0.3 change from
  // the second one on. INVALID_ARGUMENT, with nothing changed, if not finite.
  absl::Status RecordContribution(double value);

  double total_improvement() const;
  double improvement_since_stage_start() const;
  // Clamped to [-10, 10] points and scaled to [-1, 1].
  double normalized_total_improvement() const;
  double normalized_stage_improvement() const;
  // Gain since blending began, host training included; 0 before it began.
  double blending_delta() const;
};

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_METRICS_H_
