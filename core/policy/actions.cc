#include "core/policy/actions.h"

#include "absl/strings/str_cat.h"
#include "core/error.h"

namespace esper::policy {
namespace {

struct StyleMeaning {
  const char* blend_id;
  int64_t algorithm;
};

constexpr StyleMeaning kStyleMeanings[kNumStyles] = {
    {"linear", 1}, {"linear", 2}, {"sigmoid", 1}, {"gated", 3}};
constexpr int64_t kTempoEpochs[kNumTempos] = {3, 5, 8};
constexpr double kAlphaTargets[kNumAlphaTargets] = {0.5, 0.7, 1.0};
constexpr int64_t kAlphaSteps[kNumAlphaSpeeds] = {0, 3, 5, 8};
constexpr int64_t kCurves[kNumAlphaCurves] = {1, 2, 3, 3, 3};
constexpr double kSteepness[kNumAlphaCurves] = {12, 12, 6, 12, 24};

using Labels = std::vector<std::string>;

const Labels& BlueprintLabels() {
  static const auto& labels = *new Labels{
      "NOOP",       "CONV_LIGHT", "ATTENTION",     "NORM", "DEPTHWISE",
      "BOTTLENECK", "CONV_SMALL", "CONV_HEAVY",    "LORA", "LORA_LARGE",
      "MLP_SMALL",  "MLP",        "FLEX_ATTENTION"};
  return labels;
}

}  // namespace

bool IsLiveStage(int64_t stage) {
  return stage >= kStageGerminated && stage <= kStageFossilized && stage != 5;
}

std::array<int64_t, kNumActionHeads> FactoredAction::ToIndices() const {
  return {slot,         blueprint,   style,       tempo,
          alpha_target, alpha_speed, alpha_curve, static_cast<int64_t>(op)};
}

absl::StatusOr<FactoredAction> FactoredAction::FromIndices(
    const std::array<int64_t, kNumActionHeads>& indices, int num_slots) {
  for (int h = 0; h < kNumActionHeads; ++h) {
    const auto head = static_cast<ActionHead>(h);
    const int size = HeadSize(head, num_slots);
    if (indices[h] >= 0 && indices[h] < size) continue;
    return ToStatus(
        InvalidActionError(HeadName(head), /*row=*/-1, /*step=*/-1, indices[h],
                           absl::StrCat("is outside 0..", size - 1)));
  }
  FactoredAction action;
  action.slot = indices[0];
  action.blueprint = indices[1];
  action.style = indices[2];
  action.tempo = indices[3];
  action.alpha_target = indices[4];
  action.alpha_speed = indices[5];
  action.alpha_curve = indices[6];
  action.op = static_cast<Op>(indices[7]);
  return action;
}

ActionParameters DecodeAction(const FactoredAction& action) {
  ActionParameters parameters;
  parameters.blueprint_id = BlueprintId(action.blueprint);
  const StyleMeaning& style = kStyleMeanings[action.style];
  parameters.blend_id = style.blend_id;
  parameters.alpha_algorithm = style.algorithm;
  parameters.tempo_epochs = kTempoEpochs[action.tempo];
  parameters.alpha_target = kAlphaTargets[action.alpha_target];
  parameters.alpha_steps = kAlphaSteps[action.alpha_speed];
  parameters.alpha_curve = kCurves[action.alpha_curve];
  parameters.alpha_steepness = kSteepness[action.alpha_curve];
  return parameters;
}

int HeadSize(ActionHead head, int num_slots) {
  switch (head) {
    case ActionHead::kSlot:
      return num_slots;
    case ActionHead::kBlueprint:
      return kNumBlueprints;
    case ActionHead::kStyle:
      return kNumStyles;
    case ActionHead::kTempo:
      return kNumTempos;
    case ActionHead::kAlphaTarget:
      return kNumAlphaTargets;
    case ActionHead::kAlphaSpeed:
      return kNumAlphaSpeeds;
    case ActionHead::kAlphaCurve:
      return kNumAlphaCurves;
    case ActionHead::kOp:
      return kNumOps;
  }
  return 0;
}

const char* HeadName(ActionHead head) {
  constexpr const char* kNames[kNumActionHeads] = {
      "slot",         "blueprint",   "style",       "tempo",
      "alpha_target", "alpha_speed", "alpha_curve", "op"};
  return kNames[static_cast<int>(head)];
}

const char* OpName(Op op) {
  return HeadLabels(ActionHead::kOp)[static_cast<size_t>(op)].c_str();
}

const std::vector<std::string>& HeadLabels(ActionHead head) {
  static const auto& labels = *new std::vector<Labels>{
      {},
      BlueprintLabels(),
      {"LINEAR_ADD", "LINEAR_MULTIPLY", "SIGMOID_ADD", "GATED_GATE"},
      {"FAST", "STANDARD", "SLOW"},
      {"HALF", "SEVENTY", "FULL"},
      {"INSTANT", "FAST", "MEDIUM", "SLOW"},
      {"LINEAR", "COSINE", "SIGMOID_GENTLE", "SIGMOID", "SIGMOID_SHARP"},
      {"WAIT", "GERMINATE", "SET_ALPHA_TARGET", "PRUNE", "FOSSILIZE",
       "ADVANCE"}};
  return labels[static_cast<size_t>(head)];
}

const std::string& BlueprintId(int64_t index) {
  static const auto& ids = *new Labels{
      "noop",       "conv_light", "attention",     "norm", "depthwise",
      "bottleneck", "conv_small", "conv_heavy",    "lora", "lora_large",
      "mlp_small",  "mlp",        "flex_attention"};
  return ids.at(static_cast<size_t>(index));
}

int64_t BlueprintIndex(const std::string& id) {
  for (int64_t i = 0; i < kNumBlueprints; ++i) {
    if (BlueprintId(i) == id) return i;
  }
  return -1;
}

const std::vector<int64_t>& TopologyBlueprints(const std::string& topology) {
  static const auto& cnn = *new std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7};
  static const auto& transformer =
      *new std::vector<int64_t>{2, 3, 8, 9, 10, 11, 12};
  static const auto& none = *new std::vector<int64_t>;
  if (topology == "cnn") return cnn;
  return topology == "transformer" ? transformer : none;
}

const char* StageName(int64_t stage) {
  switch (stage) {
    case kStageDormant:
      return "DORMANT";
    case kStageGerminated:
      return "GERMINATED";
    case kStageTraining:
      return "TRAINING";
    case kStageBlending:
      return "BLENDING";
    case kStageHolding:
      return "HOLDING";
    case kStageFossilized:
      return "FOSSILIZED";
    case kStagePruned:
      return "PRUNED";
    case kStageEmbargoed:
      return "EMBARGOED";
    case kStageResetting:
      return "RESETTING";
    default:
      return "UNKNOWN";
  }
}

}  // namespace esper::policy
