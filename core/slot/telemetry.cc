#include "core/slot/telemetry.h"

#include <algorithm>

namespace esper::slot {
namespace {

double Clamp(double value, double low, double high) {
  return std::min(high, std::max(low, value));
}

}  // namespace

std::array<double, kTelemetryFeatures> SeedTelemetry::Features() const {
  std::array<double, kTelemetryFeatures> f{};
  const double horizon = static_cast<double>(std::max<int64_t>(max_epochs, 1));
  const auto steps = [&](int64_t count) {
    return std::min(static_cast<double>(count), horizon) / horizon;
  };
  f[StageOneHotIndex(stage)] = 1;
  f[10] = std::min(gradient_norm.value_or(0), 10.0) / 10.0;
  f[11] = gradient_health.value_or(0);
  f[12] = has_vanishing.value_or(false);
  f[13] = has_exploding.value_or(false);
  f[14] = static_cast<double>(std::min<int64_t>(epochs_in_stage, 50)) / 50.0;
  f[15] = accuracy / 100.0;
  f[16] = Clamp(accuracy_delta / 10.0, -1, 1);
  f[17] = alpha.alpha;
  f[18] = static_cast<double>(epoch) / horizon;
  f[19] = alpha.target;
  f[20] = static_cast<int>(alpha.mode) / 2.0;
  f[21] = steps(alpha.steps_total);
  f[22] = steps(alpha.steps_done);
  f[23] = steps(time_to_target);
  f[24] = Clamp(alpha_velocity, -1, 1);
  f[25] = (static_cast<int>(algorithm) - 1) / 2.0;
  return f;
}

}  // namespace esper::slot
