#include "core/env/report_views.h"

namespace esper::env {
namespace {

int64_t Number(slot::SeedStage stage) { return static_cast<int64_t>(stage); }

policy::SlotObservation ToObservation(const slot::SlotReport& report) {
  const slot::SeedMetrics& metrics = report.metrics;
  const slot::SeedTelemetry& telemetry = report.telemetry;
  const slot::AlphaState& alpha = telemetry.alpha;
  policy::SlotObservation seen;
  seen.stage = Number(report.stage);
  seen.blueprint_index = report.blueprint_index;
  seen.current_alpha = alpha.alpha;
  seen.contribution = metrics.contribution;
  seen.contribution_velocity = metrics.contribution_velocity;
  seen.blend_tempo_epochs = telemetry.tempo;
  seen.alpha_target = alpha.target;
  seen.alpha_mode = static_cast<int64_t>(alpha.mode);
  seen.alpha_steps_total = alpha.steps_total;
  seen.alpha_steps_done = alpha.steps_done;
  seen.time_to_target = telemetry.time_to_target;
  seen.alpha_velocity = telemetry.alpha_velocity;
  seen.alpha_algorithm = static_cast<int64_t>(telemetry.algorithm);
  seen.interaction_sum = metrics.interaction_sum;
  seen.gradient_norm = telemetry.gradient_norm;
  seen.gradient_health = telemetry.gradient_health;
  seen.has_vanishing = telemetry.has_vanishing;
  seen.has_exploding = telemetry.has_exploding;
  seen.epochs_in_stage = metrics.epochs_in_stage;
  seen.epochs_total = metrics.epochs_total;
  return seen;
}

}  // namespace

const slot::SlotReport* FindReport(const SlotReports& reports,
                                   const std::string& slot_id) {
  const auto found = reports.find(slot_id);
  return found != reports.end() ? &found->second : nullptr;
}

bool IsLive(const slot::SlotReport& report) {
  return policy::IsLiveStage(Number(report.stage));
}

policy::SlotObservations ToObservations(const SlotReports& reports) {
  policy::SlotObservations seen;
  for (const auto& [id, report] : reports) seen[id] = ToObservation(report);
  return seen;
}

policy::SlotMaskStates ToMaskStates(const SlotReports& reports,
                                    const std::vector<std::string>& slot_ids) {
  policy::SlotMaskStates states;
  for (const std::string& id : slot_ids) {
    const slot::SlotReport* report = FindReport(reports, id);
    if (report == nullptr) {
      states[id] = std::nullopt;
      continue;
    }
    states[id] = policy::SlotMaskState{
        Number(report->stage), report->metrics.epochs_total,
        static_cast<int64_t>(report->telemetry.alpha.mode)};
  }
  return states;
}

std::vector<policy::SignalTracker::Seed> ToTrackerSeeds(
    const SlotReports& reports, const std::vector<std::string>& slot_ids) {
  std::vector<policy::SignalTracker::Seed> seeds;
  for (const std::string& id : slot_ids) {
    const slot::SlotReport* report = FindReport(reports, id);
    if (report == nullptr || !IsLive(*report)) continue;
    policy::SignalTracker::Seed seed;
    seed.id = report->seed_id;
    seed.stage = Number(report->stage);
    seed.alpha = report->alpha();
    seed.epochs_in_stage = report->metrics.epochs_in_stage;
    seed.contribution = report->metrics.contribution;
    seed.improvement = report->metrics.improvement_since_stage_start();
    seeds.push_back(seed);
  }
  return seeds;
}

SeedInfo ToSeedInfo(const slot::SlotReport& report) {
  SeedInfo info;
  info.stage = Number(report.stage);
  info.epochs_in_stage = report.metrics.epochs_in_stage;
  info.previous_stage = Number(report.previous_stage);
  info.previous_epochs_in_stage = report.previous_epochs_in_stage;
  info.age_epochs = report.metrics.epochs_total;
  info.improvement_since_stage_start =
      report.metrics.improvement_since_stage_start();
  info.total_improvement = report.metrics.total_improvement();
  info.interaction_sum = report.metrics.interaction_sum;
  return info;
}

std::vector<SlotSnapshot> ToSnapshots(
    const SlotReports& reports, const std::vector<std::string>& slot_ids,
    const slot::CounterfactualResult& measured) {
  std::vector<SlotSnapshot> snapshots;
  for (const std::string& id : slot_ids) {
    SlotSnapshot snapshot;
    snapshot.slot_id = id;
    if (const slot::SlotReport* report = FindReport(reports, id)) {
      snapshot.stage = slot::StageName(report->stage);
      snapshot.blueprint = report->blueprint_id;
      snapshot.alpha = report->alpha();
    }
    if (const slot::SlotAttribution* found = measured.Find(id)) {
      snapshot.contribution = found->contribution;
      snapshot.shapley = found->shapley;
    }
    snapshots.push_back(snapshot);
  }
  return snapshots;
}

}  // namespace esper::env
