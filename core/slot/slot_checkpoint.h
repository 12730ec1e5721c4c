#ifndef ESPER_CORE_SLOT_SLOT_CHECKPOINT_H_
#define ESPER_CORE_SLOT_SLOT_CHECKPOINT_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "core/slot/alpha.h"
#include "core/slot/blueprint.h"
#include "core/slot/gradient_monitor.h"
#include "core/slot/metrics.h"
#include "core/slot/seed.h"
#include "core/slot/stage.h"
#include "core/slot/topology.h"
#include "core/tensor/safetensors.h"

// All of a slot as plain values, enough to rebuild its seed in an empty slot.
// The fields are listed once, in core/slot/slot_checkpoint_fields.h, which
// drives file format and tests. What a training loop holds between two steps
// is not part of it: gradients, a gradient sample that waits to be read,
// optimisers.
namespace esper::slot {

inline constexpr int64_t kSlotRecordVersion = 2;

struct StageRecord {
  SeedStage stage = SeedStage::kUnknown;
  SeedStage previous = SeedStage::kUnknown;
  int64_t previous_epochs = 0;
  absl::Time entered_at = absl::InfinitePast();
  // At most StageMachine::kHistoryLength, oldest first.
  std::vector<std::pair<SeedStage, absl::Time>> history;
};

// A seed without the values of its parameters.
struct SeedRecord {
  std::string seed_id;
  std::string blueprint_id;
  std::map<std::string, int64_t> blueprint_options;
  InitProfile init_profile = InitProfile::kLive;  // It also shapes networks.
  uint64_t generation = 0;
  int64_t tempo = 5;
  double alpha_target = 1;
  StageRecord stage;
  AlphaState alpha;
  AlphaAlgorithm algorithm = AlphaAlgorithm::kAdd;
  BlendId blend_id = BlendId::kSigmoid;
  bool isolated = false;
  SeedMetrics metrics;
  GradientReading gradients;
  bool gradients_healthy = true;
  bool output_healthy = true;
  int64_t telemetry_epoch = 0;
  int64_t telemetry_max_epochs = 25;
  std::string prune_reason;  // Of a scheduled prune; else empty.
  std::string prune_initiator;
  int64_t cooldown_ticks = 0;
  int64_t ste_blocked_steps = 0;
  // By tensor name, "seed.weight": whether the parameter is trained when no
  // ramp down freezes it.
  std::map<std::string, bool> trainable;
};

struct GateRecord {
  std::string algorithm_id = "gated";
  int64_t total_steps = 10;
};

struct SlotRecord {
  int64_t version = kSlotRecordVersion;
  std::string slot_id;
  Topology topology = Topology::kCnn;
  int64_t channels = 0;
  std::string dtype;          // Of the features: "Float".
  uint64_t germinations = 0;  // In the slot so far.
  uint64_t sequence = 0;      // Lifecycle decisions so far.
  // Reason of an automatic removal that nobody has asked about yet.
  std::optional<std::string> auto_prune;
  std::optional<SeedRecord> seed;  // Absent: the slot is empty.
  std::optional<GateRecord> gate;  // If and only if a seed blends by GATE.
};

struct SlotCheckpoint {
  SlotRecord record;
  // Parameters and buffers of the seed's networks, "seed.*" and "gate.*", with
  // the slot's dtype; detached copies on the slot's device.
  tensor::NamedTensors tensors;
};

// DATA_LOSS (CORRUPT_CHECKPOINT) naming the first key, "seed.alpha.steps_done",
// whose value contradicts its range or another key.
absl::Status CheckSlotRecord(const SlotRecord& record);

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_SLOT_CHECKPOINT_H_
