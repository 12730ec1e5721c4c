#ifndef ESPER_CORE_SLOT_REPORT_H_
#define ESPER_CORE_SLOT_REPORT_H_

#include <cstdint>
#include <string>

#include "core/slot/metrics.h"
#include "core/slot/stage.h"
#include "core/slot/telemetry.h"

namespace esper::slot {

// What an occupied slot tells the outside, cool-down included. A copy: plain
// numbers and strings, so it can keep no gradient and no network alive.
struct SlotReport {
  std::string slot_id;
  std::string seed_id;
  std::string blueprint_id;
  int64_t blueprint_index = 0;  // In the policy's blueprint head.
  uint64_t generation = 0;      // Of the seed; unique within the slot.

  SeedStage stage = SeedStage::kUnknown;
  SeedStage previous_stage = SeedStage::kUnknown;
  int64_t previous_epochs_in_stage = 0;

  // Alpha is `telemetry.alpha.alpha`.
  SeedMetrics metrics;
  SeedTelemetry telemetry;

  bool has_gate = false;   // Owns a gate network.
  bool isolated = false;   // The seed's input is cut off from the host's graph.
  bool trainable = false;  // Every parameter of the seed requires a gradient.
  bool is_healthy = true;
  bool is_improving = false;      // Since the stage began.
  bool needs_attention = false;   // Not healthy.
  int64_t ste_blocked_steps = 0;  // Training steps of a frozen seed.

  double alpha() const { return telemetry.alpha.alpha; }
};

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_REPORT_H_
