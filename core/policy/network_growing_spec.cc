#include "core/policy/actions.h"
#include "core/policy/observation.h"
#include "core/policy/policy_spec.h"

namespace esper::policy {
namespace {

constexpr int64_t kBlueprintEmbedding = 4;

struct HeadRow {
  ActionHead head;
  double upstream_floor;
  double mixture_floor;
  double entropy_coef;
  // The op decides; empty for the op itself.
  std::vector<Op> relevant_when;
  std::optional<int64_t> placeholder;
};

const std::vector<HeadRow>& HeadRows() {
  static const auto& rows = *new std::vector<HeadRow>{
      {ActionHead::kSlot,
       0.05,
       0.01,
       1.0,
       {Op::kGerminate, Op::kSetAlphaTarget, Op::kPrune, Op::kFossilize,
        Op::kAdvance},
       std::nullopt},
      {ActionHead::kBlueprint,
       0.12,
       0.005,
       1.3,
       {Op::kGerminate},
       kBlueprintNoop},
      {ActionHead::kStyle,
       0.08,
       0.01,
       1.2,
       {Op::kGerminate, Op::kSetAlphaTarget},
       kStyleSigmoidAdd},
      {ActionHead::kTempo, 0.12, 0.01, 1.3, {Op::kGerminate}, kTempoStandard},
      {ActionHead::kAlphaTarget,
       0.08,
       0.01,
       1.2,
       {Op::kGerminate, Op::kSetAlphaTarget},
       kAlphaTargetFull},
      {ActionHead::kAlphaSpeed,
       0.06,
       0.01,
       1.2,
       {Op::kSetAlphaTarget, Op::kPrune},
       kAlphaSpeedInstant},
      {ActionHead::kAlphaCurve,
       0.06,
       0.01,
       1.2,
       {Op::kSetAlphaTarget, Op::kPrune},
       kAlphaCurveLinear},
      {ActionHead::kOp, 0.15, 0.01, 1.0, {}, std::nullopt},
  };
  return rows;
}

HeadSpec MakeHead(const HeadRow& row, const NetworkGrowingOptions& options) {
  HeadSpec head;
  head.name = HeadName(row.head);
  head.size = HeadSize(row.head, static_cast<int>(options.slot_ids.size()));
  head.labels =
      row.head == ActionHead::kSlot ? options.slot_ids : HeadLabels(row.head);
  if (row.head == ActionHead::kBlueprint) head.hidden = {options.hidden_dim};
  head.hidden.push_back(options.hidden_dim / 2);
  if (row.head == ActionHead::kOp) {
    head.idle_choice = static_cast<int64_t>(Op::kWait);
  } else {
    head.driver = HeadName(ActionHead::kOp);
    for (const Op op : row.relevant_when) {
      head.relevant_when.push_back(static_cast<int64_t>(op));
    }
  }
  head.placeholder = row.placeholder;
  head.conditional_mask = row.head == ActionHead::kSlot;
  if (options.floor_mode == FloorMode::kUpstream ||
      options.floor_mode == FloorMode::kExact) {
    head.floor = row.upstream_floor;
  } else if (options.floor_mode == FloorMode::kMixture) {
    head.floor = row.mixture_floor;
  }
  head.entropy_coef = row.entropy_coef;
  return head;
}

}  // namespace

std::map<std::string, double> UpstreamFloors() {
  std::map<std::string, double> floors;
  for (const HeadRow& row : HeadRows()) {
    floors[HeadName(row.head)] = row.upstream_floor;
  }
  return floors;
}

PolicySpec PolicySpec::NetworkGrowing(const NetworkGrowingOptions& options) {
  PolicySpec spec;
  spec.name = "network_growing";
  spec.observation.push_back({"host", kObservationBaseWidth});
  for (const std::string& id : options.slot_ids) {
    spec.observation.push_back({"slot_" + id, kObservationSlotWidth});
  }
  const int64_t num_slots = static_cast<int64_t>(options.slot_ids.size());
  spec.categorical = CategoricalInput{"blueprint", num_slots, kNumBlueprints,
                                      kBlueprintEmbedding};
  for (const HeadRow& row : HeadRows()) {
    spec.heads.push_back(MakeHead(row, options));
  }
  for (const ActionHead head :
       {ActionHead::kOp, ActionHead::kStyle, ActionHead::kSlot,
        ActionHead::kBlueprint, ActionHead::kTempo, ActionHead::kAlphaTarget,
        ActionHead::kAlphaSpeed, ActionHead::kAlphaCurve}) {
    spec.sampling_order.push_back(HeadName(head));
  }
  spec.slot_ids = options.slot_ids;
  spec.feature_dim = options.feature_dim;
  spec.hidden_dim = options.hidden_dim;
  spec.lstm_layers = options.lstm_layers;
  spec.q_head = HeadName(ActionHead::kOp);
  spec.contribution_outputs = num_slots;
  spec.floor_mode = options.floor_mode;
  return spec;
}

}  // namespace esper::policy
