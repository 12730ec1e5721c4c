#include "client/env/env_messages.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"

namespace esper::client {

PolicyInput ToPolicyInput(const env::Observation& observation) {
  PolicyInput input;
  input.observation = observation.features;
  input.categorical.assign(observation.blueprint_indices.begin(),
                           observation.blueprint_indices.end());
  const std::string mask = policy::PackMaskBits(observation.mask);
  input.packed_mask.assign(mask.begin(), mask.end());
  return input;
}

absl::StatusOr<policy::FactoredAction> ToFactoredAction(const ActionRow& row,
                                                        int num_slots) {
  std::array<int64_t, policy::kNumActionHeads> indices;
  if (row.actions.size() != indices.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "The served policy has ", row.actions.size(), " heads, not the ",
        indices.size(), " of growing networks."));
  }
  std::copy(row.actions.begin(), row.actions.end(), indices.begin());
  return policy::FactoredAction::FromIndices(indices, num_slots);
}

StepOutcome ToStepOutcome(const env::StepResult& result) {
  StepOutcome outcome;
  outcome.reward = static_cast<float>(result.reward);
  outcome.effective_choice = static_cast<int32_t>(result.effective_op);
  outcome.forced = result.forced;
  if (result.contribution_fresh) {
    outcome.contribution_targets = result.contribution_targets;
    outcome.contribution_mask = result.contribution_mask;
  }
  return outcome;
}

v1::StepReport ToStepReport(const env::StepResult& result,
                            const std::vector<std::string>& slot_ids) {
  v1::StepReport report;
  report.set_epoch(result.epoch);
  report.set_train_loss(result.train_loss);
  report.set_val_loss(result.val_loss);
  report.set_val_accuracy(result.val_accuracy);
  if (result.val_accuracy_without_seeds) {
    report.set_val_accuracy_without_seeds(*result.val_accuracy_without_seeds);
  }
  report.set_reward(result.reward);
  report.set_op(policy::OpName(result.action.op));
  report.set_effective_op(policy::OpName(result.effective_op));
  report.set_slot(slot_ids.at(result.action.slot));
  report.set_success(result.success);
  for (size_t i = 0; i < result.slots.size(); ++i) {
    const env::SlotSnapshot& slot = result.slots[i];
    v1::SlotSnapshot* snapshot = report.add_slots();
    snapshot->set_slot(slot.slot_id);
    snapshot->set_stage(slot.stage);
    snapshot->set_blueprint(slot.blueprint);
    snapshot->set_alpha(slot.alpha);
    if (slot.contribution) snapshot->set_contribution(*slot.contribution);
    if (i < result.contribution_mask.size() && result.contribution_mask[i]) {
      snapshot->set_contribution_error(result.contribution_errors.at(i));
    }
  }
  return report;
}

v1::EndKind EndKindOf(bool terminated, bool truncated) {
  if (terminated) return v1::END_KIND_TERMINATED;
  return truncated ? v1::END_KIND_TRUNCATED : v1::END_KIND_ABORTED;
}

v1::EpisodeSummary ToSummary(const env::EpisodeSummary& summary) {
  v1::EpisodeSummary proto;
  proto.set_end_kind(EndKindOf(summary.terminated, summary.truncated));
  proto.set_end_reason(summary.end_reason);
  proto.set_steps(summary.steps);
  proto.set_episode_return(summary.episode_return);
  proto.set_host_accuracy(summary.host_accuracy);
  proto.set_host_accuracy_without_seeds(summary.host_accuracy_without_seeds);
  proto.set_seeds_germinated(summary.seeds_germinated);
  proto.set_seeds_blended(summary.seeds_blended);
  proto.set_seeds_fossilized(summary.seeds_fossilized);
  proto.set_seeds_pruned(summary.seeds_pruned);
  proto.set_host_params(summary.host_params);
  proto.set_total_params(summary.total_params);
  proto.set_wall_seconds(summary.wall_seconds);
  return proto;
}

}  // namespace esper::client
