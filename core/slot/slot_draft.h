#ifndef ESPER_CORE_SLOT_SLOT_DRAFT_H_
#define ESPER_CORE_SLOT_SLOT_DRAFT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "core/slot/events.h"
#include "core/slot/gates.h"
#include "core/slot/seed.h"
#include "core/slot/seed_slot.h"
#include "core/slot/stage.h"

namespace esper::slot {

// A step into another stage that waits for its gate to open.
struct GatedStep {
  SeedStage target = SeedStage::kUnknown;
  GateResult verdict;
  // A closed gate is no refusal: the rest of the call stands (ticks).
  bool optional = false;
  bool full_alpha = false;  // Alpha rests at 1 after the step.
};

// What a lifecycle call would make of a slot, worked out aside. Nothing that a
// forward pass, a report or another draft can see changes before the slot's
// owner commits it.
struct SlotDraft {
  const SeedSlot::Options& slot;
  bool training = false;      // The slot's mode.
  uint64_t germinations = 0;  // Of the slot so far.
  absl::Time now;

  std::optional<Seed> seed;  // What the slot would hold.
  bool changed = false;      // `seed` differs from what the slot holds.
  std::optional<std::string> auto_prune;  // Reason of a removal.
  std::optional<GatedStep> step;          // Comes last.
  std::vector<SlotEvent> events;
};

// 64-bit FNV-1a over what decides the outcome of a call besides the slot's
// state. Stable across processes and machines.
class DecisionHash {
 public:
  DecisionHash& Add(const std::string& text);
  DecisionHash& Add(uint64_t number);
  DecisionHash& Add(double number);

  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325ULL;
};

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_SLOT_DRAFT_H_
