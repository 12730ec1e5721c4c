#include "core/env/reward_account.h"

#include <utility>

#include "core/env/loss_reward.h"
#include "core/env/outcome.h"

namespace esper::env {
namespace {

using policy::Op;

template <typename Map>
auto ValueOr(const Map& map, const std::string& key,
             typename Map::mapped_type fallback) {
  const auto found = map.find(key);
  return found != map.end() ? found->second : fallback;
}

RentMeter::Options RentOptions(const RewardConfig& config) {
  RentMeter::Options options;
  options.base_slot_rent_ratio = config.base_slot_rent_ratio;
  options.host_params_floor = config.rent_host_params_floor;
  return options;
}

}  // namespace

RewardAccount::RewardAccount(const EpisodeConfig& config,
                             std::vector<std::string> slot_ids)
    : config_(config),
      slot_ids_(std::move(slot_ids)),
      rent_(RentOptions(config.reward)) {}

void RewardAccount::OnValidation(const slot::CounterfactualResult& measured,
                                 int epoch) {
  if (!first_accuracy_.has_value()) first_accuracy_ = measured.val_accuracy;
  for (const slot::PairInteraction& pair : measured.pairs) {
    ledger_.RecordInteraction(measured.slots[pair.first].slot,
                              measured.slots[pair.second].slot, pair.value,
                              epoch);
  }
}

void RewardAccount::AddRent(const RewardContext& context,
                            RewardInputs* inputs) {
  std::vector<RentSlot> slots;
  for (size_t i = 0; i < slot_ids_.size(); ++i) {
    RentSlot slot;
    slot.slot_id = slot_ids_[i];
    const slot::SlotReport* report = FindReport(context.reports, slot.slot_id);
    if (report != nullptr && IsLive(*report)) {
      slot.live = true;
      slot.stage = static_cast<int64_t>(report->stage);
      slot.alpha = report->alpha();
      slot.seed_params = context.slot_parameters[i];  // The gate's included.
    }
    slots.push_back(slot);
  }
  const RentAndShock rent = rent_.Measure(slots, context.host_parameters);
  inputs->effective_seed_params = rent.effective_seed_params;
  inputs->alpha_delta_sq_sum = rent.alpha_delta_sq_sum;
}

void RewardAccount::CountOccupants(const RewardContext& context,
                                   RewardInputs* inputs) const {
  for (size_t i = 0; i < slot_ids_.size(); ++i) {
    const slot::SlotReport* report = FindReport(context.reports, slot_ids_[i]);
    if (report == nullptr) continue;
    if (report->stage == slot::SeedStage::kFossilized) {
      ++inputs->n_fossilized;
      inputs->fossilized_params += context.slot_parameters[i];
    } else if (report->stage != slot::SeedStage::kPruned) {
      ++inputs->n_active;
    }
  }
  inputs->n_contributing = contributing_;
}

RewardInputs RewardAccount::Inputs(const RewardContext& context, Op op,
                                   int64_t target) {
  const policy::TrainingSignals& signals = context.signals;
  const slot::CounterfactualResult& measured = context.measured;
  RewardInputs inputs;
  inputs.op = op;
  inputs.target = target;
  inputs.epoch = context.epoch;
  inputs.max_epochs = config_.max_epochs;
  inputs.val_acc = measured.val_accuracy;
  inputs.val_loss = measured.val_loss;
  inputs.acc_delta = signals.accuracy_delta;
  if (config_.loss_delta == EpisodeConfig::LossDelta::kNewMinusOld) {
    // The tracker counts a falling loss as positive; rewards, as negative.
    if (signals.has_previous) inputs.loss_delta = -signals.loss_delta;
  } else {
    inputs.loss_delta = signals.has_previous
                            ? signals.loss_delta
                            : config_.loss_reward.max_loss_delta *
                                  config_.loss_reward.typical_loss_delta_std;
  }
  if (first_accuracy_.has_value()) {
    inputs.acc_since_start = measured.val_accuracy - *first_accuracy_;
  }
  inputs.stable_val_acc = context.stable_val_accuracy;
  inputs.committed_val_acc = measured.committed_accuracy;
  if (measured.all_off_accuracy.has_value()) {
    inputs.counterfactual_improvement =
        measured.val_accuracy - *measured.all_off_accuracy;
  }
  inputs.host_params = context.host_parameters;
  inputs.total_params = context.total_parameters;
  AddRent(context, &inputs);
  CountOccupants(context, &inputs);

  for (const std::string& id : slot_ids_) {
    SlotRewardInputs slot;
    slot.slot_id = id;
    slot.escrow_credit = ValueOr(escrow_, id, 0.0);
    const slot::SlotReport* report = FindReport(context.reports, id);
    if (report != nullptr && IsLive(*report)) {
      slot.seed_id = report->seed_id;
      slot.seed = ToSeedInfo(*report);
    }
    if (const auto start = acc_at_germination_.find(id);
        start != acc_at_germination_.end()) {
      slot.acc_at_germination = start->second;
    }
    if (const slot::SlotAttribution* found = measured.Find(id)) {
      slot.contribution = found->contribution;
      inputs.drip_contributions[slot.seed_id] = found->contribution;
    }
    inputs.slots.push_back(std::move(slot));
  }
  inputs.drips = drips_;
  return inputs;
}

absl::StatusOr<RewardBreakdown> RewardAccount::Pay(const RewardContext& context,
                                                   Op op, int64_t target) {
  const bool loss_family =
      config_.reward_family == EpisodeConfig::RewardFamily::kLoss;
  const RewardInputs inputs = Inputs(context, op, target);
  absl::StatusOr<RewardBreakdown> reward =
      loss_family ? ComputeLossReward(config_.loss_reward, inputs)
                  : ComputeReward(config_.reward, inputs);
  if (!reward.ok()) return reward.status();

  std::vector<FinalSlot> occupied;
  for (const auto& [id, report] : context.reports) {
    const auto moved = reward->escrow.find(id);
    occupied.push_back(
        {id, static_cast<int64_t>(report.stage), report.metrics.epochs_total,
         moved != reward->escrow.end() ? moved->second.next
                                       : ValueOr(escrow_, id, 0.0)});
  }
  // The loss family pays no potential that the end would have to take back.
  const bool last_epoch = context.epoch == config_.max_epochs && !loss_family;
  AddFinalTerms(config_.reward, last_epoch, occupied, &pending_, &*reward);
  return reward;
}

void RewardAccount::OnOutcome(const RewardContext& context, Op op, bool success,
                              int64_t target, const RewardBreakdown& paid) {
  for (const auto& [id, moved] : paid.escrow) escrow_[id] = moved.next;
  drips_ = paid.drips;
  if (!success) return;
  const std::string& id = slot_ids_[target];
  if (op == Op::kGerminate) {
    acc_at_germination_[id] = context.measured.val_accuracy;
    escrow_[id] = 0;
  } else if (op == Op::kFossilize) {
    const slot::SlotReport* report = FindReport(context.reports, id);
    const slot::SlotAttribution* measured = context.measured.Find(id);
    const double improvement = report->metrics.total_improvement();
    std::optional<double> contribution;
    if (measured != nullptr) contribution = measured->contribution;
    if (CountsAsContributing(config_.reward, improvement, contribution)) {
      ++contributing_;
    }
    pending_.credit += ledger_.Settle(id, improvement, context.epoch).credit;
    acc_at_germination_.erase(id);
    if (paid.new_drip.has_value()) drips_.push_back(*paid.new_drip);
  }
}

void RewardAccount::OnTick(const SlotReports& reports,
                           const std::vector<std::string>& auto_pruned) {
  pending_.penalty += config_.reward.auto_prune_penalty * auto_pruned.size();
  for (const std::string& id : slot_ids_) {
    const slot::SlotReport* report = FindReport(reports, id);
    if (report != nullptr && IsLive(*report)) continue;
    acc_at_germination_.erase(id);
    escrow_.erase(id);
  }
}

void RewardAccount::Close(RewardBreakdown* reward) {
  FlushPending(config_.reward, &pending_, reward);
}

}  // namespace esper::env
