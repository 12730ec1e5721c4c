#include "core/slot/alpha.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"

namespace esper::slot {
namespace {

double Clamp01(double value) { return std::min(1.0, std::max(0.0, value)); }

// 1 / (1 + exp(-x)); exp never sees a positive argument.
double Logistic(double x) {
  if (x >= 0) return 1.0 / (1.0 + std::exp(-x));
  const double e = std::exp(x);
  return e / (1.0 + e);
}

absl::Status NotFinite(const char* what, double value) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, " must be finite, got ", value, "."));
}

absl::Status UnknownNumber(const char* what, int64_t number) {
  return absl::InvalidArgumentError(
      absl::StrCat("There is no ", what, " ", number, "."));
}

}  // namespace

const char* AlphaModeName(AlphaMode mode) {
  switch (mode) {
    case AlphaMode::kHold:
      return "HOLD";
    case AlphaMode::kUp:
      return "UP";
    case AlphaMode::kDown:
      return "DOWN";
  }
  return "?";
}

const char* AlphaCurveName(AlphaCurve curve) {
  switch (curve) {
    case AlphaCurve::kLinear:
      return "LINEAR";
    case AlphaCurve::kCosine:
      return "COSINE";
    case AlphaCurve::kSigmoid:
      return "SIGMOID";
  }
  return "?";
}

const char* AlphaAlgorithmName(AlphaAlgorithm algorithm) {
  switch (algorithm) {
    case AlphaAlgorithm::kAdd:
      return "ADD";
    case AlphaAlgorithm::kMultiply:
      return "MULTIPLY";
    case AlphaAlgorithm::kGate:
      return "GATE";
  }
  return "?";
}

absl::StatusOr<AlphaMode> AlphaModeFromNumber(int64_t number) {
  if (number < 0 || number > 2) return UnknownNumber("alpha mode", number);
  return static_cast<AlphaMode>(number);
}

absl::StatusOr<AlphaCurve> AlphaCurveFromNumber(int64_t number) {
  if (number < 1 || number > 3) return UnknownNumber("alpha curve", number);
  return static_cast<AlphaCurve>(number);
}

absl::StatusOr<AlphaAlgorithm> AlphaAlgorithmFromNumber(int64_t number) {
  if (number < 1 || number > 3) {
    return UnknownNumber("alpha algorithm", number);
  }
  return static_cast<AlphaAlgorithm>(number);
}

double CurveProgress(AlphaCurve curve, double steepness, double t) {
  t = Clamp01(t);
  switch (curve) {
    case AlphaCurve::kLinear:
      return t;
    case AlphaCurve::kCosine:
      return 0.5 * (1.0 - std::cos(M_PI * t));
    case AlphaCurve::kSigmoid: {
      const double low = Logistic(-0.5 * steepness);
      const double range = Logistic(0.5 * steepness) - low;
      if (range == 0) return t;
      return (Logistic(steepness * (t - 0.5)) - low) / range;
    }
  }
  return t;
}

bool operator==(const AlphaState& a, const AlphaState& b) {
  return a.alpha == b.alpha && a.start == b.start && a.target == b.target &&
         a.mode == b.mode && a.curve == b.curve && a.steepness == b.steepness &&
         a.steps_total == b.steps_total && a.steps_done == b.steps_done;
}

absl::StatusOr<AlphaController> AlphaController::FromState(
    const AlphaState& state) {
  if (!std::isfinite(state.alpha)) return NotFinite("alpha", state.alpha);
  if (!std::isfinite(state.start)) return NotFinite("alpha start", state.start);
  if (!std::isfinite(state.target)) {
    return NotFinite("alpha target", state.target);
  }
  if (!std::isfinite(state.steepness)) {
    return NotFinite("alpha steepness", state.steepness);
  }
  AlphaController controller;
  AlphaState& s = controller.state_;
  s = state;
  s.alpha = Clamp01(s.alpha);
  s.start = Clamp01(s.start);
  s.target = Clamp01(s.target);
  s.steepness = std::max(kMinSteepness, s.steepness);
  s.steps_total = std::max<int64_t>(0, s.steps_total);
  s.steps_done = std::min(s.steps_total, std::max<int64_t>(0, s.steps_done));
  return controller;
}

absl::Status AlphaController::Retarget(double target, int64_t steps,
                                       std::optional<AlphaCurve> curve,
                                       std::optional<double> steepness) {
  if (!std::isfinite(target)) return NotFinite("alpha target", target);
  if (steepness && !std::isfinite(*steepness)) {
    return NotFinite("alpha steepness", *steepness);
  }
  if (state_.mode != AlphaMode::kHold) {
    return absl::FailedPreconditionError(absl::StrCat(
        "Alpha is on its way to ", state_.target, " (step ", state_.steps_done,
        " of ", state_.steps_total, "); retarget it once it rests."));
  }
  state_.start = state_.alpha;
  state_.target = Clamp01(target);
  if (curve) state_.curve = *curve;
  if (steepness) state_.steepness = std::max(kMinSteepness, *steepness);
  state_.steps_total = std::max<int64_t>(0, steps);
  state_.steps_done = 0;
  if (state_.steps_total == 0 || state_.target == state_.alpha) {
    state_.steps_total = 0;
    state_.alpha = state_.target;
    return absl::OkStatus();
  }
  state_.mode =
      state_.target > state_.alpha ? AlphaMode::kUp : AlphaMode::kDown;
  return absl::OkStatus();
}

bool AlphaController::Step() {
  if (state_.mode == AlphaMode::kHold || state_.steps_total == 0) return false;
  ++state_.steps_done;
  if (state_.steps_done >= state_.steps_total) {
    state_.steps_done = state_.steps_total;
    state_.alpha = state_.target;
    state_.mode = AlphaMode::kHold;
    return true;
  }
  const double t = static_cast<double>(state_.steps_done) /
                   static_cast<double>(state_.steps_total);
  const double progress = CurveProgress(state_.curve, state_.steepness, t);
  const double alpha =
      Clamp01(state_.start + (state_.target - state_.start) * progress);
  const auto [low, high] = std::minmax(state_.start, state_.target);
  state_.alpha = std::min(high, std::max(low, alpha));
  return false;
}

absl::Status AlphaController::SetAlpha(double alpha) {
  if (!std::isfinite(alpha)) return NotFinite("alpha", alpha);
  state_.alpha = Clamp01(alpha);
  return absl::OkStatus();
}

void AlphaController::RestAt(double alpha) {
  state_.alpha = state_.start = state_.target = alpha;
  state_.mode = AlphaMode::kHold;
  state_.steps_done = state_.steps_total;
}

void AlphaController::Reset() {
  state_.steps_total = 0;
  RestAt(0);
}

bool AlphaController::AtTarget() const {
  return state_.mode == AlphaMode::kHold &&
         std::abs(state_.alpha - state_.target) <= kAlphaTolerance;
}

double AlphaController::velocity() const {
  if (state_.mode == AlphaMode::kHold || state_.steps_total == 0) return 0;
  return (state_.target - state_.start) /
         static_cast<double>(state_.steps_total);
}

int64_t AlphaController::time_to_target() const {
  return std::max<int64_t>(0, state_.steps_total - state_.steps_done);
}

}  // namespace esper::slot
