#ifndef ESPER_CORE_SLOT_GATE_SYNCHRONIZER_H_
#define ESPER_CORE_SLOT_GATE_SYNCHRONIZER_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "core/slot/gates.h"
#include "core/slot/stage.h"

namespace esper::slot {

// Which decision is being taken; equal on all ranks that take it together.
struct DecisionKey {
  std::string slot_id;
  uint64_t sequence = 0;  // Decisions of the slot so far.
  SeedStage from = SeedStage::kUnknown;
  SeedStage target = SeedStage::kUnknown;
  uint64_t generation = 0;  // Of the seed.
};

// Makes the ranks of a data-parallel run agree on a verdict. Every rank calls
// for every decision, early failures included, in the same order.
class GateSynchronizer {
 public:
  virtual ~GateSynchronizer() = default;

  // `local` is this rank's verdict, or the error that kept it from one.
  // Returns the verdict that all ranks act on; an error fails the lifecycle
  // call on every rank.
  virtual absl::StatusOr<GateResult> Agree(
      const DecisionKey& key, const absl::StatusOr<GateResult>& local) = 0;
};

// A run of one rank: the local verdict stands.
class LocalGateSynchronizer : public GateSynchronizer {
 public:
  absl::StatusOr<GateResult> Agree(
      const DecisionKey& key,
      const absl::StatusOr<GateResult>& local) override {
    return local;
  }
};

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_GATE_SYNCHRONIZER_H_
