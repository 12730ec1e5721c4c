#ifndef ESPER_CORE_SLOT_INTERACTION_H_
#define ESPER_CORE_SLOT_INTERACTION_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"

// How to read measured interactions of slots. Plain numbers, no state.
namespace esper::slot {

// What two seeds do to one another.
enum class InteractionRegime {
  kIndependent,
  kSynergy,       // Worth more together than apart.
  kInterference,  // Worth less.
  kRecovering,    // Worth less, but it gets better.
};

const char* InteractionRegimeName(InteractionRegime regime);  // "SYNERGY"

inline constexpr double kRegimeThreshold = 0.5;       // Percentage points.
inline constexpr double kRecoveryDerivative = 0.001;  // Points per epoch.

// `value`: a pair's interaction (PairInteraction), percentage points;
// `derivative`: its change per epoch. Above the threshold synergy, below its
// negative interference, or recovering if the derivative is above its own.
// INVALID_ARGUMENT if a number is not finite.
absl::StatusOr<InteractionRegime> ClassifyInteraction(double value,
                                                      double derivative);

// Main effect of each of `players`: the mean worth of the measured sets with
// the player less the mean of those without. Absent where one of the groups was
// not measured. `masks` and `worths` belong together, one entry for each set.
// INVALID_ARGUMENT unless 0 <= players <= 63, if the lengths differ, or for a
// worth that is not finite.
absl::StatusOr<std::vector<std::optional<double>>> MainEffects(
    int players, const std::vector<uint64_t>& masks,
    const std::vector<double>& worths);

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_INTERACTION_H_
