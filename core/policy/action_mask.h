#ifndef ESPER_CORE_POLICY_ACTION_MASK_H_
#define ESPER_CORE_POLICY_ACTION_MASK_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/policy/actions.h"

// Which actions of the network-growing policy are legal. Timing heuristics are
// left to the policy; only what cannot work is masked.
namespace esper::policy {

inline constexpr int64_t kMinPruneAgeEpochs = 5;

// What masking needs to know of an occupied slot, cool-down included.
struct SlotMaskState {
  int64_t stage = kStageUnknown;
  int64_t age_epochs = 0;  // `epochs_total` of the seed.
  int64_t alpha_mode = kAlphaModeHold;
};

// State by slot id; an absent value is an empty slot.
using SlotMaskStates = std::map<std::string, std::optional<SlotMaskState>>;

struct ActionMaskOptions {
  std::vector<std::string> slot_ids;       // The slot configuration.
  std::vector<std::string> enabled_slots;  // Subset; order and repeats free.
  std::string topology = "cnn";            // "cnn" or "transformer", exactly.
  int64_t max_seeds = 0;                   // 0 = unlimited.
  bool allow_governor_override = false;    // PRUNE while alpha is moving.
  bool disable_advance = false;            // ADVANCE is never legal.
};

// The masks of one observation. True = allowed.
struct ActionMask {
  int num_slots = 0;
  // Packed heads in storage order, slot first: [A], A = S + 38.
  std::vector<bool> heads;
  // Row per op: [6 * S]; replaces the slot head's mask once the op is known.
  std::vector<bool> slot_by_op;

  bool Allows(ActionHead head, int64_t choice) const;
  bool AllowsSlot(Op op, int64_t slot) const;
  // One head's entries.
  std::vector<bool> HeadMask(ActionHead head) const;
  // Whether WAIT is the only allowed op.
  bool IsForced() const;
};

// Entries of the packed heads for `num_slots` slots.
int PackedMaskSize(int num_slots);
// Where `head` begins in the packed heads.
int HeadOffset(ActionHead head, int num_slots);

// `total_seeds`: live seeds in the whole model. INVALID_ARGUMENT if the
// topology is neither string, no slot is enabled, an enabled slot is not in the
// configuration, or an enabled slot is missing from `states`.
absl::StatusOr<ActionMask> BuildActionMask(const ActionMaskOptions& options,
                                           const SlotMaskStates& states,
                                           int64_t total_seeds = 0);

// The same for several environments that share `options`. `total_seeds` empty
// = all 0. INVALID_ARGUMENT on an empty batch, or if the list has another
// length; the row is named.
absl::StatusOr<std::vector<ActionMask>> BuildActionMasks(
    const ActionMaskOptions& options, const std::vector<SlotMaskStates>& states,
    const std::vector<int64_t>& total_seeds = {});

// Wire form: slot_by_op row-major by op, then the heads in storage order
// without slot; least significant bit first; zero-padded to a byte.
// Size: ceil((6 S + 38) / 8) bytes.
std::string PackMaskBits(const ActionMask& mask);
// The slot head becomes the WAIT row. MALFORMED_REQUEST (INVALID_ARGUMENT) if
// the size is wrong or a padding bit is set.
absl::StatusOr<ActionMask> UnpackMaskBits(const std::string& bytes,
                                          int num_slots);

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_ACTION_MASK_H_
