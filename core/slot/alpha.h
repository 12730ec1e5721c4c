#ifndef ESPER_CORE_SLOT_ALPHA_H_
#define ESPER_CORE_SLOT_ALPHA_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace esper::slot {

// Numbers of the three enumerations are wire contracts.
enum class AlphaMode : int { kHold = 0, kUp = 1, kDown = 2 };
enum class AlphaCurve : int { kLinear = 1, kCosine = 2, kSigmoid = 3 };
// How a seed's features join the host's (core/slot/blend.h).
enum class AlphaAlgorithm : int { kAdd = 1, kMultiply = 2, kGate = 3 };

const char* AlphaModeName(AlphaMode mode);                 // "HOLD"
const char* AlphaCurveName(AlphaCurve curve);              // "LINEAR"
const char* AlphaAlgorithmName(AlphaAlgorithm algorithm);  // "ADD"
// INVALID_ARGUMENT for a number outside the enumeration.
absl::StatusOr<AlphaMode> AlphaModeFromNumber(int64_t number);
absl::StatusOr<AlphaCurve> AlphaCurveFromNumber(int64_t number);
absl::StatusOr<AlphaAlgorithm> AlphaAlgorithmFromNumber(int64_t number);

inline constexpr double kAlphaTolerance = 1e-6;
inline constexpr double kDefaultSteepness = 12.0;
inline constexpr double kMinSteepness = 0.1;

// Share of a ramp that is done after the share `t` of its steps; `t` is clamped
// to [0, 1]. LINEAR t; COSINE (1 - cos(pi t)) / 2; SIGMOID the logistic of
// steepness * (t - 1/2), rescaled to run from 0 to 1. Steepness matters to
// SIGMOID only.
double CurveProgress(AlphaCurve curve, double steepness, double t);

// All of an alpha controller, for reports and checkpoints.
struct AlphaState {
  double alpha = 0;  // In [0, 1], as are start and target.
  double start = 0;  // Where the ramp began.
  double target = 0;
  AlphaMode mode = AlphaMode::kHold;
  AlphaCurve curve = AlphaCurve::kLinear;
  double steepness = kDefaultSteepness;  // >= kMinSteepness.
  int64_t steps_total = 0;               // Of the ramp; 0 = no ramp.
  int64_t steps_done = 0;                // In [0, steps_total].
};
bool operator==(const AlphaState& a, const AlphaState& b);

// Moves a seed's blend weight along a curve, one step per epoch. Between start
// and target alpha is monotone; the last step lands on the target exactly; a
// ramp in progress cannot be retargeted. A value: copies are independent.
class AlphaController {
 public:
  AlphaController() = default;  // At rest at 0.

  // Clamps numbers into their ranges. INVALID_ARGUMENT if one is not finite.
  static absl::StatusOr<AlphaController> FromState(const AlphaState& state);

  // Starts a ramp from the present alpha; absent arguments keep the stored
  // curve and steepness. Zero steps (or fewer) arrive at once; a target equal
  // to alpha leaves the controller at rest without a ramp.
  // INVALID_ARGUMENT if a number is not finite; FAILED_PRECONDITION while a
  // ramp is in progress. Either changes nothing.
  absl::Status Retarget(double target, int64_t steps,
                        std::optional<AlphaCurve> curve = std::nullopt,
                        std::optional<double> steepness = std::nullopt);

  // One step; true if it arrived at the target. At rest, false.
  bool Step();

  // Moves alpha alone, clamped to [0, 1]; the ramp, if any, goes on.
  // INVALID_ARGUMENT if not finite.
  absl::Status SetAlpha(double alpha);

  // Ends any ramp, with start, target and alpha at `alpha` in [0, 1].
  void RestAt(double alpha);

  // At rest at 0 without a ramp; keeps curve and steepness.
  void Reset();

  // At rest within kAlphaTolerance of the target.
  bool AtTarget() const;

  const AlphaState& state() const { return state_; }
  double alpha() const { return state_.alpha; }
  AlphaMode mode() const { return state_.mode; }
  // Mean slope of the ramp, alpha per step; 0 at rest.
  double velocity() const;
  // Steps left of the ramp.
  int64_t time_to_target() const;

 private:
  AlphaState state_;
};

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_ALPHA_H_
