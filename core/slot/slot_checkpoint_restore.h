#ifndef ESPER_CORE_SLOT_SLOT_CHECKPOINT_RESTORE_H_
#define ESPER_CORE_SLOT_SLOT_CHECKPOINT_RESTORE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/slot/blueprint.h"
#include "core/slot/seed.h"
#include "core/slot/seed_slot.h"
#include "core/slot/slot_checkpoint.h"

namespace esper::slot {

// All of the slot now. Parameters are copied: later training does not show.
SlotCheckpoint SaveSlot(const SeedSlot& slot);

// A checkpoint that has been checked as a whole, with its seed rebuilt, ready
// to be put into its slot. Several can be prepared before the first commits, so
// that a model loads all its slots or none.
class PreparedSlot {
 public:
  // Touches nothing of the slot, nor any global generator.
  // FAILED_PRECONDITION (SPEC_MISMATCH) if the checkpoint is of another slot
  // id, topology, width or dtype, or of a blueprint that the registry lacks.
  // DATA_LOSS (CORRUPT_CHECKPOINT) naming key or tensor for anything that
  // contradicts itself or the rebuilt networks.
  static absl::StatusOr<PreparedSlot> Prepare(
      const SeedSlot& slot, const SlotCheckpoint& checkpoint,
      const BlueprintRegistry& registry);

  // Replaces whatever `slot`, the one it was prepared for, holds; cannot fail.
  // An empty record empties it. Afterwards parameters are frozen if and only if
  // their mask says so or alpha moves down; the warning about a frozen seed may
  // come again; the parameter generation is a new one. For the thread that owns
  // the slot's parameters.
  void Commit(SeedSlot& slot) &&;

 private:
  PreparedSlot() = default;

  std::optional<Seed> seed_;
  uint64_t germinations_ = 0;
  uint64_t sequence_ = 0;
  std::optional<std::string> auto_prune_;
};

// Prepares and commits; on an error the slot is as it was.
absl::Status LoadSlot(SeedSlot& slot, const SlotCheckpoint& checkpoint,
                      const BlueprintRegistry& registry);

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_SLOT_CHECKPOINT_RESTORE_H_
