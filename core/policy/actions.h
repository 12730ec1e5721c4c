#ifndef ESPER_CORE_POLICY_ACTIONS_H_
#define ESPER_CORE_POLICY_ACTIONS_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

// The vocabulary of the network-growing policy: its eight categorical heads,
// what each index means, and how an index becomes a physical quantity. Plain
// values without tensors; every function is pure and safe from any thread.
namespace esper::policy {

// Heads in storage order: the order of dictionaries, reports and the wire.
enum class ActionHead : int {
  kSlot = 0,
  kBlueprint = 1,
  kStyle = 2,
  kTempo = 3,
  kAlphaTarget = 4,
  kAlphaSpeed = 5,
  kAlphaCurve = 6,
  kOp = 7,
};
inline constexpr int kNumActionHeads = 8;

// What to do with the chosen slot.
enum class Op : int64_t {
  kWait = 0,
  kGerminate = 1,
  kSetAlphaTarget = 2,
  kPrune = 3,
  kFossilize = 4,
  kAdvance = 5,
};
inline constexpr int kNumOps = 6;

inline constexpr int kNumBlueprints = 13;
inline constexpr int kNumStyles = 4;
inline constexpr int kNumTempos = 3;
inline constexpr int kNumAlphaTargets = 3;
inline constexpr int kNumAlphaSpeeds = 4;
inline constexpr int kNumAlphaCurves = 5;

// Placeholders: what an irrelevant head holds. The slot head's is the first
// allowed slot.
inline constexpr int64_t kBlueprintNoop = 0;
inline constexpr int64_t kStyleSigmoidAdd = 2;
inline constexpr int64_t kTempoStandard = 1;
inline constexpr int64_t kAlphaTargetFull = 2;
inline constexpr int64_t kAlphaSpeedInstant = 0;
inline constexpr int64_t kAlphaCurveLinear = 0;

// Seed stages by number, as observations, masks and rewards see them. Number 5
// is retired.
inline constexpr int64_t kStageUnknown = 0;
inline constexpr int64_t kStageDormant = 1;
inline constexpr int64_t kStageGerminated = 2;
inline constexpr int64_t kStageTraining = 3;
inline constexpr int64_t kStageBlending = 4;
inline constexpr int64_t kStageHolding = 6;
inline constexpr int64_t kStageFossilized = 7;
inline constexpr int64_t kStagePruned = 8;
inline constexpr int64_t kStageEmbargoed = 9;
inline constexpr int64_t kStageResetting = 10;

// Whether a seed in `stage` trains or takes part in the forward pass:
// GERMINATED to FOSSILIZED.
bool IsLiveStage(int64_t stage);

// Alpha controller modes by number.
inline constexpr int64_t kAlphaModeHold = 0;
inline constexpr int64_t kAlphaModeUp = 1;
inline constexpr int64_t kAlphaModeDown = 2;

// One choice per head.
struct FactoredAction {
  int64_t slot = 0;  // Index into the slot configuration.
  int64_t blueprint = kBlueprintNoop;
  int64_t style = kStyleSigmoidAdd;
  int64_t tempo = kTempoStandard;
  int64_t alpha_target = kAlphaTargetFull;
  int64_t alpha_speed = kAlphaSpeedInstant;
  int64_t alpha_curve = kAlphaCurveLinear;
  Op op = Op::kWait;

  // The eight integers in storage order.
  std::array<int64_t, kNumActionHeads> ToIndices() const;

  // INVALID_ACTION (INVALID_ARGUMENT), naming the head, if an integer is
  // outside its head's range.
  static absl::StatusOr<FactoredAction> FromIndices(
      const std::array<int64_t, kNumActionHeads>& indices, int num_slots);
};

// The physical parameters that the non-slot heads stand for.
struct ActionParameters {
  std::string blueprint_id;  // Lower case: "conv_light"; "noop" for NOOP.
  std::string blend_id;      // "linear", "sigmoid" or "gated".
  int64_t alpha_algorithm;   // 1 add, 2 multiply, 3 gate.
  int64_t tempo_epochs;      // Blend duration, in epochs.
  double alpha_target;       // In (0, 1].
  int64_t alpha_steps;       // Controller steps of a retarget or prune.
  int64_t alpha_curve;       // 1 linear, 2 cosine, 3 sigmoid.
  double alpha_steepness;    // Of the sigmoid; unused by the other curves.
};

// `action` must be in range.
ActionParameters DecodeAction(const FactoredAction& action);

// Choices of `head`; `num_slots` for the slot head.
int HeadSize(ActionHead head, int num_slots);
const char* HeadName(ActionHead head);  // "slot", "blueprint", ..., "op".
const char* OpName(Op op);              // "WAIT", ..., "ADVANCE".
// Upper-case labels of a head's choices; empty for the slot head, whose labels
// are the slot ids.
const std::vector<std::string>& HeadLabels(ActionHead head);
// "noop" for 0; `index` in [0, kNumBlueprints).
const std::string& BlueprintId(int64_t index);
// -1 if no blueprint has that id.
int64_t BlueprintIndex(const std::string& id);
// Blueprints that a host of `topology` ("cnn" or "transformer") can grow, NOOP
// left out, in increasing order. Empty for any other string.
const std::vector<int64_t>& TopologyBlueprints(const std::string& topology);
// "UNKNOWN" for a number that is no stage.
const char* StageName(int64_t stage);

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_ACTIONS_H_
