#include "core/slot/lifecycle_result.h"

#include "core/error.h"

namespace esper::slot {

const char* RefusalName(Refusal refusal) {
  switch (refusal) {
    case Refusal::kNone:
      return "NONE";
    case Refusal::kSlotOccupied:
      return "SLOT_OCCUPIED";
    case Refusal::kNoSeed:
      return "NO_SEED";
    case Refusal::kFossilized:
      return "FOSSILIZED";
    case Refusal::kCoolingDown:
      return "COOLING_DOWN";
    case Refusal::kIllegalTransition:
      return "ILLEGAL_TRANSITION";
    case Refusal::kGateFailed:
      return "GATE_FAILED";
    case Refusal::kAlphaMoving:
      return "ALPHA_MOVING";
    case Refusal::kWrongStage:
      return "WRONG_STAGE";
  }
  return "?";
}

LifecycleResult LifecycleResult::Done(std::optional<GateResult> gate) {
  return LifecycleResult(absl::OkStatus(), Refusal::kNone, std::move(gate));
}

LifecycleResult LifecycleResult::Refused(Refusal refusal,
                                         const std::string& message,
                                         std::optional<GateResult> gate) {
  ErrorDetail detail;
  detail.reason = RefusalName(refusal);
  return LifecycleResult(
      MakeStatus(absl::StatusCode::kFailedPrecondition, detail, message),
      refusal, std::move(gate));
}

LifecycleResult LifecycleResult::Failed(absl::Status error) {
  return LifecycleResult(std::move(error), Refusal::kNone, std::nullopt);
}

}  // namespace esper::slot
