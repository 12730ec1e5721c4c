#ifndef ESPER_CORE_SLOT_FORCED_ALPHA_H_
#define ESPER_CORE_SLOT_FORCED_ALPHA_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "core/error.h"
#include "core/slot/health_probe.h"

// What ForceAlpha scopes and forward passes share: which alphas this thread
// forces. Callers use core/slot/force_alpha.h.
namespace esper::slot {

// One per slot: whether a scope is open on it, on whatever thread.
struct ForceAlphaClaim {
  std::atomic<bool> taken{false};
};

// One open scope. Shared by the scope and by the thread that opened it.
struct ForcedAlpha {
  std::shared_ptr<ForceAlphaClaim> claim;
  double value = 0;  // In [0, 1].
  // Of the seed in the slot at that time: one that is germinated or loaded
  // later has a probe of its own. Null: the slot was empty.
  std::shared_ptr<const HealthProbe> seed;
  std::thread::id thread;
  std::atomic<bool> open{true};
};

// Makes the calling thread's forwards see `forced` until it is closed.
void RegisterForcedAlpha(std::shared_ptr<ForcedAlpha> forced);

// Ends it. On another thread than the one that opened it this is a mistake,
// which is logged; the scope ends all the same.
void CloseForcedAlpha(ForcedAlpha& forced, const std::string& slot_id);

// The open scope of the calling thread on the slot of `claim`; null if none.
std::shared_ptr<const ForcedAlpha> FindForcedAlpha(
    const ForceAlphaClaim& claim);

// FAILED_PRECONDITION with `reason`, whose sentence ends by naming the
// functional form. `code` INVALID_ARGUMENT for a bad number.
Error ForceAlphaError(
    const std::string& reason, const std::string& slot_id,
    const std::string& message,
    absl::StatusCode code = absl::StatusCode::kFailedPrecondition);

// Throws ForceAlphaError (RECORDING, TRAINING_MODE) where a scope can neither
// be opened nor read: a graph capture or a trace is being recorded on this
// thread, or the slot trains with gradients enabled.
void CheckForceAlphaAllowed(const std::string& slot_id, bool training);

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_FORCED_ALPHA_H_
