#ifndef ESPER_CORE_SLOT_GATE_SYNCHRONIZER_H_
#define ESPER_CORE_SLOT_GATE_SYNCHRONIZER_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/slot/gates.h"
#include "core/slot/lifecycle_result.h"
#include "core/slot/stage.h"

namespace esper::slot {

// The lifecycle calls, each of which is a decision. Numbers travel between
// ranks.
enum class Decision : uint8_t {
  kGerminate = 1,
  kAdvance = 2,
  kFossilize = 3,
  kTick = 4,
  kSetAlpha = 5,
  kSetAlphaTarget = 6,
  kSchedulePrune = 7,
  kPrune = 8,
};

const char* DecisionName(Decision decision);  // "Advance"

// Which decision is being taken; equal on all ranks that take it together.
struct DecisionKey {
  std::string slot_id;
  Decision decision = Decision::kAdvance;
  uint64_t sequence = 0;  // Decisions of the slot so far.
  SeedStage from = SeedStage::kUnknown;
  SeedStage target = SeedStage::kUnknown;  // Of a step through a gate.
  uint64_t generation = 0;                 // Of the seed; 0 = none.
  // Of the request, the slot and the gate policy: all else that decides.
  uint64_t config_hash = 0;
};

// What one rank makes of a decision by itself, with nothing done yet.
struct LocalOutcome {
  absl::Status status;                // OK, a refusal or an error.
  Refusal refusal = Refusal::kNone;   // If `status` is a refusal.
  std::optional<GateResult> verdict;  // If a gate has to open.
};

// Makes the ranks of a data-parallel run agree on a decision before any of them
// acts. Every rank calls for every decision, whatever it thinks of it, in the
// same order.
class GateSynchronizer {
 public:
  virtual ~GateSynchronizer() = default;

  // Returns the verdict that all ranks act on; absent if `local` has none. An
  // error fails the lifecycle call on every rank.
  virtual absl::StatusOr<std::optional<GateResult>> Agree(
      const DecisionKey& key, const LocalOutcome& local) = 0;
};

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_GATE_SYNCHRONIZER_H_
