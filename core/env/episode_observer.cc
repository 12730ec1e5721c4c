#include "core/env/episode_observer.h"

#include <utility>

#include "core/slot/topology.h"

namespace esper::env {

EpisodeObserver::EpisodeObserver(const EpisodeConfig& config)
    : control_(config.control), tracking_(config.freshness) {
  mask_options_.slot_ids = config.task->slot_ids;
  mask_options_.enabled_slots = config.task->slot_ids;
  mask_options_.topology = slot::TopologyName(config.task->host.topology);
  mask_options_.max_seeds = config.max_seeds;
  mask_options_.disable_advance = config.auto_forward_g1 &&
                                  config.auto_forward_g2 &&
                                  config.auto_forward_g3;
  observation_options_.slot_ids = config.task->slot_ids;
  observation_options_.max_epochs = config.max_epochs;
  tracking_.StartEpisode();
}

policy::SignalTracker::Epoch EpisodeObserver::Describe(
    int epoch, const TrainingStats& training,
    const slot::CounterfactualResult& measured,
    const SlotReports& reports) const {
  const std::vector<std::string>& slot_ids = mask_options_.slot_ids;
  policy::SignalTracker::Epoch seen;
  seen.epoch = epoch;
  seen.global_step = epoch * training.batches;
  seen.train_loss = training.loss;
  seen.train_accuracy = training.accuracy;
  seen.val_loss = measured.val_loss;
  seen.val_accuracy = measured.val_accuracy;
  seen.seeds = ToTrackerSeeds(reports, slot_ids);
  seen.available_slots = static_cast<int64_t>(slot_ids.size() - reports.size());
  return seen;
}

absl::StatusOr<policy::TrainingSignals> EpisodeObserver::Update(
    int epoch, const TrainingStats& training,
    const slot::CounterfactualResult& measured, const SlotReports& reports) {
  absl::StatusOr<policy::TrainingSignals> signals =
      tracker_.Update(Describe(epoch, training, measured, reports));
  if (!signals.ok()) return signals.status();
  for (const slot::SlotAttribution& slot : measured.slots) {
    tracking_.OnContributionMeasured(slot.slot);
  }
  return signals;
}

absl::StatusOr<policy::TrainingSignals> EpisodeObserver::Peek(
    int epoch, const TrainingStats& training,
    const slot::CounterfactualResult& measured,
    const SlotReports& reports) const {
  return tracker_.Peek(Describe(epoch, training, measured, reports));
}

absl::StatusOr<Observation> EpisodeObserver::Observe(
    const policy::TrainingSignals& signals, const SlotReports& reports,
    int64_t live_seeds, bool final) const {
  policy::HostSignals host;
  host.epoch = signals.epoch;
  host.val_loss = signals.val_loss;
  host.val_accuracy = signals.val_accuracy;
  host.loss_history = signals.loss_history;
  host.accuracy_history = signals.accuracy_history;
  absl::StatusOr<policy::Observation> built = policy::BuildObservation(
      observation_options_, host, ToObservations(reports), tracking_);
  if (!built.ok()) return built.status();
  absl::StatusOr<policy::ActionMask> mask = policy::BuildActionMask(
      mask_options_, ToMaskStates(reports, mask_options_.slot_ids), live_seeds);
  if (!mask.ok()) return mask.status();
  if (control_.has_value() && !final) {
    absl::Status status =
        control_->Narrow(static_cast<int>(signals.epoch), &*mask);
    if (!status.ok()) return status;
  }
  Observation observation;
  observation.epoch = static_cast<int>(signals.epoch);
  observation.features = std::move(built->features);
  observation.blueprint_indices = std::move(built->blueprint_indices);
  observation.mask = *std::move(mask);
  return observation;
}

std::optional<double> EpisodeObserver::StableAccuracy(int64_t window) const {
  const absl::StatusOr<double> stable = tracker_.StableValAccuracy(window);
  if (!stable.ok()) return std::nullopt;
  return *stable;
}

}  // namespace esper::env
