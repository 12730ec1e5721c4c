#include "core/ppo/schedule.h"

#include <algorithm>

namespace esper::ppo {
namespace {

// Share of a ramp that is done, in [0, 1].
double Ramp(int64_t updates, int64_t length) {
  return std::clamp(static_cast<double>(updates) / static_cast<double>(length),
                    0.0, 1.0);
}

}  // namespace

double EntropySchedule::At(int64_t updates) const {
  if (anneal_updates <= 0) return std::max(fixed, minimum);
  return std::max(start + Ramp(updates, anneal_updates) * (end - start),
                  minimum);
}

double ValueSchedule::At(int64_t updates) const {
  if (warmup_updates <= 0) return target;
  return start + Ramp(updates, warmup_updates) * (target - start);
}

double ContributionSchedule::At(int64_t updates) const {
  if (warmup_updates <= 0) return coefficient;
  return coefficient * Ramp(updates, warmup_updates);
}

double FloorPenaltyFactor(double progress) {
  const double p = std::clamp(progress, 0.0, 1.0);
  if (p < 0.25) return 1.5;
  if (p < 0.75) return 1.0;
  return 1.0 - 0.5 * (p - 0.75) / 0.25;
}

}  // namespace esper::ppo
