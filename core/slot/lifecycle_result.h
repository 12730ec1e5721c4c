#ifndef ESPER_CORE_SLOT_LIFECYCLE_RESULT_H_
#define ESPER_CORE_SLOT_LIFECYCLE_RESULT_H_

#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "core/slot/gates.h"

namespace esper::slot {

// Why a lifecycle call that made sense in itself was declined.
enum class Refusal {
  kNone,
  kSlotOccupied,       // Germination into a slot that holds or cools a seed.
  kNoSeed,             // The slot is empty.
  kFossilized,         // The seed is permanent.
  kCoolingDown,        // The seed is already pruned.
  kIllegalTransition,  // The stage machine has no such step.
  kGateFailed,         // See LifecycleResult::gate.
  kAlphaMoving,        // A ramp is in progress.
  kWrongStage,         // The call does not apply to the seed's stage.
};

const char* RefusalName(Refusal refusal);  // "SLOT_OCCUPIED"

// What became of a lifecycle call: done, refused with a reason, or an error.
// Refused and failed calls have changed nothing.
class [[nodiscard]] LifecycleResult {
 public:
  static LifecycleResult Done(std::optional<GateResult> gate = std::nullopt);
  static LifecycleResult Refused(Refusal refusal, const std::string& message,
                                 std::optional<GateResult> gate = std::nullopt);
  // `error` must not be OK.
  static LifecycleResult Failed(absl::Status error);

  bool ok() const { return status_.ok(); }
  bool refused() const { return refusal_ != Refusal::kNone; }
  Refusal refusal() const { return refusal_; }
  // OK; FAILED_PRECONDITION with the refusal's name as reason; or the error.
  const absl::Status& status() const { return status_; }
  // The verdict that the call obtained, if it came to one.
  const std::optional<GateResult>& gate() const { return gate_; }

 private:
  LifecycleResult(absl::Status status, Refusal refusal,
                  std::optional<GateResult> gate)
      : status_(std::move(status)), refusal_(refusal), gate_(std::move(gate)) {}

  absl::Status status_;
  Refusal refusal_;
  std::optional<GateResult> gate_;
};

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_LIFECYCLE_RESULT_H_
