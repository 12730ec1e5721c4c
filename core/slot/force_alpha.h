#ifndef ESPER_CORE_SLOT_FORCE_ALPHA_H_
#define ESPER_CORE_SLOT_FORCE_ALPHA_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/slot/forced_alpha.h"
#include "core/slot/seed_slot.h"

namespace esper::slot {

// While it lives, forwards of the thread that opened it see the slot at a
// forced alpha. For interactive use; evaluation code passes
// SlotView{alpha_override}, which has none of the limits below.
//
// Nothing is written into the slot: reports, gates, checkpoints and other
// threads keep seeing the true alpha, and a lifecycle call made meanwhile
// stays in effect afterwards. A forward refuses by throwing esper::Error
// (FAILED_PRECONDITION) if, under an open scope of its thread,
//   RECORDING          a graph capture or a trace is being recorded;
//   TRAINING_MODE      the slot trains with gradients enabled;
//   OVERRIDE_CONFLICT  the call has an explicit override for the slot as well;
//   STALE_SEED         the slot holds another seed than when it was opened,
//                      germinated or loaded since.
//
// Must end on the thread that opened it. Movable, so that it can be returned;
// may outlive its slot.
class [[nodiscard]] ScopedForceAlpha {
 public:
  ScopedForceAlpha(ScopedForceAlpha&& other) noexcept = default;
  ScopedForceAlpha(const ScopedForceAlpha&) = delete;
  ScopedForceAlpha& operator=(const ScopedForceAlpha&) = delete;
  ScopedForceAlpha& operator=(ScopedForceAlpha&&) = delete;
  ~ScopedForceAlpha();

 private:
  friend absl::StatusOr<ScopedForceAlpha> ForceAlpha(const SeedSlot& slot,
                                                     double alpha);
  ScopedForceAlpha(std::string slot_id, std::shared_ptr<ForcedAlpha> forced);

  std::string slot_id_;
  std::shared_ptr<ForcedAlpha> forced_;  // Null once moved from.
};

// Opens a scope at `alpha`. On an empty slot it has no effect. Refused, with
// nothing changed:
//   INVALID_ARGUMENT (BAD_ALPHA) unless alpha is finite and in [0, 1];
//   FAILED_PRECONDITION, reason FORCE_ALPHA_OPEN, if a scope is open on this
//   slot, nested or on another thread; RECORDING and TRAINING_MODE as above.
[[nodiscard]] absl::StatusOr<ScopedForceAlpha> ForceAlpha(const SeedSlot& slot,
                                                          double alpha);

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_FORCE_ALPHA_H_
