#include "core/policy/action_mask.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/error.h"

namespace esper::policy {
namespace {

constexpr int kNumFixedChoices = kNumBlueprints + kNumStyles + kNumTempos +
                                 kNumAlphaTargets + kNumAlphaSpeeds +
                                 kNumAlphaCurves + kNumOps;

absl::Status BadMaskInput(const std::string& field,
                          const std::string& message) {
  ErrorDetail detail;
  detail.reason = "MALFORMED_REQUEST";
  detail.field = field;
  return MakeStatus(absl::StatusCode::kInvalidArgument, detail, message);
}

bool IsOneOf(int64_t stage, std::initializer_list<int64_t> stages) {
  return std::find(stages.begin(), stages.end(), stage) != stages.end();
}

bool CanRetarget(const SlotMaskState& slot) {
  return IsOneOf(slot.stage, {kStageBlending, kStageHolding}) &&
         slot.alpha_mode == kAlphaModeHold;
}

bool CanPrune(const SlotMaskState& slot, bool governor_override) {
  return IsOneOf(slot.stage, {kStageGerminated, kStageTraining, kStageBlending,
                              kStageHolding}) &&
         slot.age_epochs >= kMinPruneAgeEpochs &&
         (slot.alpha_mode == kAlphaModeHold || governor_override);
}

bool CanAdvance(const SlotMaskState& slot) {
  return IsOneOf(slot.stage,
                 {kStageGerminated, kStageTraining, kStageBlending});
}

// A seed that is young or being cleaned up keeps the whole model from
// germinating another.
bool BlocksGermination(const SlotMaskState& slot) {
  return IsOneOf(slot.stage, {kStageGerminated, kStageTraining, kStagePruned,
                              kStageEmbargoed, kStageResetting});
}

class MaskBuilder {
 public:
  MaskBuilder(const ActionMaskOptions& options, const SlotMaskStates& states,
              int64_t total_seeds)
      : options_(options), states_(states), total_seeds_(total_seeds) {
    mask_.num_slots = static_cast<int>(options.slot_ids.size());
    mask_.heads.assign(PackedMaskSize(mask_.num_slots), false);
    mask_.slot_by_op.assign(kNumOps * mask_.num_slots, false);
  }

  absl::StatusOr<ActionMask> Build() {
    if (absl::Status status = ResolveEnabled(); !status.ok()) return status;
    for (int64_t slot : enabled_) {
      Allow(ActionHead::kSlot, slot);
      AllowSlot(Op::kWait, slot);
    }
    Allow(ActionHead::kOp, static_cast<int64_t>(Op::kWait));
    const bool can_germinate = CanGerminate();
    bool can_retarget = false;
    for (int64_t slot : enabled_) {
      const auto& state = states_.at(options_.slot_ids[slot]);
      if (!state.has_value()) {
        if (can_germinate) AllowOp(Op::kGerminate, slot);
        continue;
      }
      if (CanRetarget(*state)) {
        can_retarget = true;
        AllowOp(Op::kSetAlphaTarget, slot);
      }
      if (CanPrune(*state, options_.allow_governor_override)) {
        AllowOp(Op::kPrune, slot);
      }
      if (state->stage == kStageHolding) AllowOp(Op::kFossilize, slot);
      if (CanAdvance(*state) && !options_.disable_advance) {
        AllowOp(Op::kAdvance, slot);
      }
    }
    for (int64_t i : TopologyBlueprints(options_.topology)) {
      Allow(ActionHead::kBlueprint, i);
    }
    AllowAll(ActionHead::kTempo);
    AllowAll(ActionHead::kAlphaSpeed);
    AllowAll(ActionHead::kAlphaCurve);
    if (can_germinate || can_retarget) {
      AllowAll(ActionHead::kStyle);
      AllowAll(ActionHead::kAlphaTarget);
    } else {
      Allow(ActionHead::kStyle, kStyleSigmoidAdd);
      Allow(ActionHead::kAlphaTarget, kAlphaTargetFull);
    }
    return std::move(mask_);
  }

 private:
  // Indices of the enabled slots, once each; checks what the caller gave.
  absl::Status ResolveEnabled() {
    if (TopologyBlueprints(options_.topology).empty()) {
      return BadMaskInput("topology",
                          absl::StrCat("Topology \"", options_.topology,
                                       "\" is neither cnn nor transformer."));
    }
    if (options_.enabled_slots.empty()) {
      return BadMaskInput("enabled_slots", "No slot is enabled.");
    }
    const auto& ids = options_.slot_ids;
    for (const std::string& id : options_.enabled_slots) {
      const auto it = std::find(ids.begin(), ids.end(), id);
      if (it == ids.end()) {
        return BadMaskInput(
            "enabled_slots",
            absl::StrCat("Enabled slot ", id, " is not in the configuration."));
      }
      if (states_.count(id) == 0) {
        return BadMaskInput(
            "states", absl::StrCat("Enabled slot ", id, " has no state."));
      }
      const int64_t slot = it - ids.begin();
      if (std::find(enabled_.begin(), enabled_.end(), slot) == enabled_.end()) {
        enabled_.push_back(slot);
      }
    }
    return absl::OkStatus();
  }

  bool CanGerminate() const {
    if (options_.max_seeds > 0 && total_seeds_ >= options_.max_seeds) {
      return false;
    }
    bool some_empty = false;
    for (int64_t slot : enabled_) {
      const auto& state = states_.at(options_.slot_ids[slot]);
      if (!state.has_value()) {
        some_empty = true;
      } else if (BlocksGermination(*state)) {
        return false;
      }
    }
    return some_empty;
  }

  void Allow(ActionHead head, int64_t choice) {
    mask_.heads[HeadOffset(head, mask_.num_slots) + choice] = true;
  }
  void AllowAll(ActionHead head) {
    for (int i = 0; i < HeadSize(head, mask_.num_slots); ++i) Allow(head, i);
  }
  void AllowSlot(Op op, int64_t slot) {
    mask_.slot_by_op[static_cast<int64_t>(op) * mask_.num_slots + slot] = true;
  }
  void AllowOp(Op op, int64_t slot) {
    Allow(ActionHead::kOp, static_cast<int64_t>(op));
    AllowSlot(op, slot);
  }

  const ActionMaskOptions& options_;
  const SlotMaskStates& states_;
  const int64_t total_seeds_;
  std::vector<int64_t> enabled_;
  ActionMask mask_;
};

}  // namespace

bool ActionMask::Allows(ActionHead head, int64_t choice) const {
  if (choice < 0 || choice >= HeadSize(head, num_slots)) return false;
  return heads[HeadOffset(head, num_slots) + choice];
}

bool ActionMask::AllowsSlot(Op op, int64_t slot) const {
  if (slot < 0 || slot >= num_slots) return false;
  return slot_by_op[static_cast<int64_t>(op) * num_slots + slot];
}

std::vector<bool> ActionMask::HeadMask(ActionHead head) const {
  const auto begin = heads.begin() + HeadOffset(head, num_slots);
  return std::vector<bool>(begin, begin + HeadSize(head, num_slots));
}

bool ActionMask::IsForced() const {
  for (int op = 1; op < kNumOps; ++op) {
    if (Allows(ActionHead::kOp, op)) return false;
  }
  return true;
}

int PackedMaskSize(int num_slots) { return num_slots + kNumFixedChoices; }

int HeadOffset(ActionHead head, int num_slots) {
  int offset = 0;
  for (int h = 0; h < static_cast<int>(head); ++h) {
    offset += HeadSize(static_cast<ActionHead>(h), num_slots);
  }
  return offset;
}

absl::StatusOr<ActionMask> BuildActionMask(const ActionMaskOptions& options,
                                           const SlotMaskStates& states,
                                           int64_t total_seeds) {
  return MaskBuilder(options, states, total_seeds).Build();
}

absl::StatusOr<std::vector<ActionMask>> BuildActionMasks(
    const ActionMaskOptions& options, const std::vector<SlotMaskStates>& states,
    const std::vector<int64_t>& total_seeds) {
  if (states.empty()) return BadMaskInput("states", "The batch is empty.");
  if (!total_seeds.empty() && total_seeds.size() != states.size()) {
    return BadMaskInput(
        "total_seeds",
        absl::StrCat("total_seeds has ", total_seeds.size(), " entries for ",
                     states.size(), " environments."));
  }
  std::vector<ActionMask> masks;
  masks.reserve(states.size());
  for (size_t row = 0; row < states.size(); ++row) {
    auto mask = BuildActionMask(options, states[row],
                                total_seeds.empty() ? 0 : total_seeds[row]);
    if (!mask.ok()) {
      ErrorDetail detail = DetailOf(mask.status()).value_or(ErrorDetail());
      detail.row = static_cast<int64_t>(row);
      return MakeStatus(mask.status().code(), detail,
                        absl::StrCat("Row ", row, ": ",
                                     std::string(mask.status().message())));
    }
    masks.push_back(*std::move(mask));
  }
  return masks;
}

std::string PackMaskBits(const ActionMask& mask) {
  std::vector<bool> bits = mask.slot_by_op;
  bits.insert(bits.end(), mask.heads.begin() + mask.num_slots,
              mask.heads.end());
  std::string bytes((bits.size() + 7) / 8, '\0');
  for (size_t i = 0; i < bits.size(); ++i) {
    if (bits[i]) bytes[i / 8] |= static_cast<char>(1 << (i % 8));
  }
  return bytes;
}

absl::StatusOr<ActionMask> UnpackMaskBits(const std::string& bytes,
                                          int num_slots) {
  const size_t conditional = static_cast<size_t>(kNumOps) * num_slots;
  const size_t bits = conditional + kNumFixedChoices;
  if (bytes.size() != (bits + 7) / 8) {
    return BadMaskInput(
        "mask",
        absl::StrCat("A mask for ", num_slots, " slots has ", (bits + 7) / 8,
                     " bytes, got ", bytes.size(), "."));
  }
  const auto bit = [&bytes](size_t i) {
    return ((static_cast<unsigned char>(bytes[i / 8]) >> (i % 8)) & 1) != 0;
  };
  for (size_t i = bits; i < bytes.size() * 8; ++i) {
    if (bit(i)) return BadMaskInput("mask", "A padding bit of a mask is set.");
  }
  ActionMask mask;
  mask.num_slots = num_slots;
  mask.slot_by_op.resize(conditional);
  for (size_t i = 0; i < conditional; ++i) mask.slot_by_op[i] = bit(i);
  // The WAIT row is the slot head's own mask.
  mask.heads.assign(mask.slot_by_op.begin(),
                    mask.slot_by_op.begin() + num_slots);
  for (size_t i = conditional; i < bits; ++i) mask.heads.push_back(bit(i));
  return mask;
}

}  // namespace esper::policy
