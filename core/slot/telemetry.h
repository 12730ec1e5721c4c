#ifndef ESPER_CORE_SLOT_TELEMETRY_H_
#define ESPER_CORE_SLOT_TELEMETRY_H_

#include <array>
#include <cstdint>
#include <optional>

#include "absl/time/time.h"
#include "core/slot/alpha.h"
#include "core/slot/stage.h"

namespace esper::slot {

inline constexpr int kTelemetryFeatures = 26;

// A seed's vital signs at the end of an epoch. Built anew from the live state
// each time it is asked for. Numbers only; absent = not measured.
struct SeedTelemetry {
  std::optional<double> gradient_norm;
  std::optional<double> gradient_health;
  std::optional<bool> has_vanishing;
  std::optional<bool> has_exploding;
  double accuracy = 0;        // Percentage points.
  double accuracy_delta = 0;  // Since the stage began; 0 before BLENDING.
  int64_t epochs_in_stage = 0;
  SeedStage stage = SeedStage::kDormant;
  AlphaState alpha;
  int64_t time_to_target = 0;  // Controller steps.
  double alpha_velocity = 0;   // Alpha per step.
  AlphaAlgorithm algorithm = AlphaAlgorithm::kAdd;
  int64_t tempo = 5;             // Epochs.
  double blending_velocity = 0;  // Alpha per epoch, in BLENDING.
  int64_t epoch = 0;
  int64_t max_epochs = 25;
  absl::Time captured_at = absl::InfinitePast();

  // Stage one-hot (10), gradient norm, health, vanishing, exploding, epochs in
  // stage, accuracy, delta, alpha, epoch share, target, mode, steps total,
  // steps done, time to target, velocity, algorithm; each scaled to about one.
  // Unmeasured fields are 0.
  std::array<double, kTelemetryFeatures> Features() const;
};

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_TELEMETRY_H_
