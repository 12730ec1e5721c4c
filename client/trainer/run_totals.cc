#include "client/trainer/run_totals.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace esper::client {
namespace {

// Calls `visit(name, member)` for every member, in the order of the file.
template <typename Totals, typename Visitor>
void VisitMembers(Totals& t, Visitor visit) {
  visit("finished", t.finished);
  visit("updates", t.updates);
  visit("updates_without_step", t.updates_without_step);
  visit("updates_failed", t.updates_failed);
  visit("optimizer_steps", t.optimizer_steps);
  visit("transitions_trained", t.transitions_trained);
  visit("env_steps", t.env_steps);
  visit("episodes", t.episodes);
  visit("episodes_aborted", t.episodes_aborted);
  visit("episodes_stale", t.episodes_stale);
  visit("evaluations", t.evaluations);
  visit("next_episode", t.next_episode);
  visit("seeds_germinated", t.seeds_germinated);
  visit("seeds_blended", t.seeds_blended);
  visit("seeds_fossilized", t.seeds_fossilized);
  visit("seeds_pruned", t.seeds_pruned);
  visit("ratio_check_max", t.ratio_check_max);
  visit("policy_version", t.policy_version);
  visit("publishes", t.publishes);
  visit("weights_change_l2", t.weights_change_l2);
  visit("checkpoint", t.checkpoint);
  visit("checkpoint_version", t.checkpoint_version);
  visit("wall_seconds", t.wall_seconds);
  visit("restarts", t.restarts);
  visit("host_accuracy", t.host_accuracy);
  visit("host_accuracy_without_seeds", t.host_accuracy_without_seeds);
  visit("episode_return", t.episode_return);
}

}  // namespace

void RunTotals::Add(const FinishedEpisode& episode) {
  const v1::EpisodeSummary& summary = episode.summary;
  ++episodes;
  next_episode = std::max(next_episode, episode.lease.episode + 1);
  env_steps += summary.steps();
  seeds_germinated += summary.seeds_germinated();
  seeds_blended += summary.seeds_blended();
  seeds_fossilized += summary.seeds_fossilized();
  seeds_pruned += summary.seeds_pruned();
  host_accuracy.push_back(summary.host_accuracy());
  host_accuracy_without_seeds.push_back(summary.host_accuracy_without_seeds());
  episode_return.push_back(summary.episode_return());
}

void RunTotals::Add(const UpdateReport& update) {
  optimizer_steps += update.optimizer_steps;
  if (std::isfinite(update.ratio_check_max)) {
    ratio_check_max = std::max(ratio_check_max, update.ratio_check_max);
  }
  if (update.optimizer_steps == 0) {
    ++updates_without_step;
    return;
  }
  ++updates;
  transitions_trained += update.transitions;
  weights_change_l2 += update.weights_change_l2;
  if (!update.published) return;
  ++publishes;
  policy_version = update.policy_version;
}

void RunTotals::SetVersion(int64_t version) {
  policy_version = version;
  publishes = version - 1;
}

nlohmann::ordered_json ToJson(const RunTotals& totals) {
  nlohmann::ordered_json json;
  VisitMembers(totals, [&json](const char* name, const auto& member) {
    json[name] = member;
  });
  return json;
}

absl::StatusOr<RunTotals> RunTotalsFromJson(const nlohmann::json& json) {
  RunTotals totals;
  try {
    VisitMembers(totals, [&json](const char* name, auto& member) {
      json.at(name).get_to(member);
    });
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("not the summary of a run: ", error.what()));
  }
  return totals;
}

}  // namespace esper::client
