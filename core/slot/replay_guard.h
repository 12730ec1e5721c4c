#ifndef ESPER_CORE_SLOT_REPLAY_GUARD_H_
#define ESPER_CORE_SLOT_REPLAY_GUARD_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "core/slot/forward_plan.h"
#include "core/slot/seed_slot.h"

namespace esper::slot {

// Says whether a captured graph of forward (and backward) passes may still be
// replayed. Made beside the capture, while its slots are as captured.
//
// A forward under capture reads alpha from ForwardPlan::alpha_buffer, so that
// a change of alpha alone takes effect in the next replay. A change of stage,
// operator, seed, gate network, isolation or blend-out freeze gives the slot
// another ForwardPlan::structure, and the graph computes something else than a
// forward would.
//
// Keeps the captured networks alive, since the graph points into them. Thread
// safety: const after construction; a lifecycle call between CheckReplay and
// the replay is the caller's to exclude.
class ReplayGuard {
 public:
  explicit ReplayGuard(std::vector<std::shared_ptr<const SeedSlot>> slots);

  // FAILED_PRECONDITION, reason STALE_CAPTURE, if a slot has another structure
  // by now, or FORCED_REPLAY if this thread forces the alpha of a slot: a
  // replay cannot see that.
  absl::Status CheckReplay() const;

 private:
  struct Captured {
    std::shared_ptr<const SeedSlot> slot;
    std::shared_ptr<const ForwardPlan> plan;
  };
  std::vector<Captured> captured_;
};

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_REPLAY_GUARD_H_
