#include "core/slot/interaction.h"

#include <cmath>
#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace esper::slot {

const char* InteractionRegimeName(InteractionRegime regime) {
  switch (regime) {
    case InteractionRegime::kIndependent:
      return "INDEPENDENT";
    case InteractionRegime::kSynergy:
      return "SYNERGY";
    case InteractionRegime::kInterference:
      return "INTERFERENCE";
    case InteractionRegime::kRecovering:
      return "RECOVERING";
  }
  return "?";
}

absl::StatusOr<InteractionRegime> ClassifyInteraction(double value,
                                                      double derivative) {
  if (!std::isfinite(value) || !std::isfinite(derivative)) {
    return absl::InvalidArgumentError(
        absl::StrCat("An interaction and its derivative must be finite, got ",
                     value, " and ", derivative, "."));
  }
  if (value > kRegimeThreshold) return InteractionRegime::kSynergy;
  if (value < -kRegimeThreshold) {
    return derivative > kRecoveryDerivative ? InteractionRegime::kRecovering
                                            : InteractionRegime::kInterference;
  }
  return InteractionRegime::kIndependent;
}

absl::StatusOr<std::vector<std::optional<double>>> MainEffects(
    int players, const std::vector<uint64_t>& masks,
    const std::vector<double>& worths) {
  if (players < 0 || players > 63 || masks.size() != worths.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Main effects need 0 to 63 players and a worth for every set, got ",
        players, " players, ", masks.size(), " sets and ", worths.size(),
        " worths."));
  }
  for (const double worth : worths) {
    if (!std::isfinite(worth)) {
      return absl::InvalidArgumentError(
          absl::StrCat("Worths must be finite, got ", worth, "."));
    }
  }
  std::vector<std::optional<double>> effects(players);
  for (int i = 0; i < players; ++i) {
    double sums[2] = {0, 0};
    double counts[2] = {0, 0};
    for (size_t k = 0; k < masks.size(); ++k) {
      const int on = masks[k] >> i & 1;
      sums[on] += worths[k];
      ++counts[on];
    }
    if (counts[0] == 0 || counts[1] == 0) continue;
    effects[i] = sums[1] / counts[1] - sums[0] / counts[0];
  }
  return effects;
}

}  // namespace esper::slot
