#include "client/trainer/run_records.h"

#include <cmath>
#include <iterator>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "nlohmann/json.hpp"

namespace esper::client {
namespace {

using Json = nlohmann::ordered_json;

// Text that cannot end a field or a line.
std::string Quoted(std::string text) {
  for (char& c : text) {
    if (c == '"') c = '\'';
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  }
  return absl::StrCat("\"", text, "\"");
}

std::string Number(double value) { return absl::StrFormat("%.9g", value); }

// The metric, or nothing if the server did not report it.
std::string Metric(const UpdateReport& update, const std::string& name) {
  const auto it = update.metrics.find(name);
  return it == update.metrics.end() ? "" : Number(it->second);
}

std::string Line(const std::vector<std::string>& fields) {
  return absl::StrCat(absl::StrJoin(fields, ","), "\n");
}

const char* EndKindName(v1::EndKind kind) {
  switch (kind) {
    case v1::END_KIND_TERMINATED:
      return "terminated";
    case v1::END_KIND_TRUNCATED:
      return "truncated";
    default:
      return "aborted";
  }
}

// JSON has no NaN.
Json Finite(double value) {
  return std::isfinite(value) ? Json(value) : Json();
}

Json ToJson(const v1::StepReport& step) {
  Json slots = Json::array();
  for (const v1::SlotSnapshot& slot : step.slots()) {
    slots.push_back(
        {{"slot", slot.slot()},
         {"stage", slot.stage()},
         {"blueprint", slot.blueprint()},
         {"alpha", Finite(slot.alpha())},
         {"contribution",
          slot.has_contribution() ? Finite(slot.contribution()) : Json()},
         {"contribution_error", slot.has_contribution_error()
                                    ? Finite(slot.contribution_error())
                                    : Json()}});
  }
  return {{"epoch", step.epoch()},
          {"train_loss", Finite(step.train_loss())},
          {"val_loss", Finite(step.val_loss())},
          {"val_accuracy", Finite(step.val_accuracy())},
          {"val_accuracy_without_seeds",
           step.has_val_accuracy_without_seeds()
               ? Finite(step.val_accuracy_without_seeds())
               : Json()},
          {"reward", Finite(step.reward())},
          {"op", step.op()},
          {"effective_op", step.effective_op()},
          {"slot", step.slot()},
          {"success", step.success()},
          {"slots", slots}};
}

}  // namespace

std::string EpisodeCsvHeader() {
  return "number,episode,seed,policy_version,end_kind,end_reason,steps,return,"
         "host_accuracy,host_accuracy_without_seeds,seeds_germinated,"
         "seeds_blended,seeds_fossilized,seeds_pruned,host_params,total_params,"
         "wall_seconds\n";
}

std::string EpisodeCsvLine(const FinishedEpisode& episode, int64_t number) {
  const v1::EpisodeSummary& s = episode.summary;
  return Line(
      {absl::StrCat(number), absl::StrCat(episode.lease.episode),
       absl::StrCat(episode.lease.seed), absl::StrCat(episode.policy_version),
       EndKindName(s.end_kind()), Quoted(s.end_reason()),
       absl::StrCat(s.steps()), Number(s.episode_return()),
       Number(s.host_accuracy()), Number(s.host_accuracy_without_seeds()),
       absl::StrCat(s.seeds_germinated()), absl::StrCat(s.seeds_blended()),
       absl::StrCat(s.seeds_fossilized()), absl::StrCat(s.seeds_pruned()),
       absl::StrCat(s.host_params()), absl::StrCat(s.total_params()),
       Number(s.wall_seconds())});
}

std::string UpdateCsvHeader() {
  return "update,policy_version,episodes,transitions,passes,optimizer_steps,"
         "kl_stopped,skipped_nonfinite,mean_return,mean_host_accuracy,"
         "mean_host_accuracy_without_seeds,policy_loss,value_loss,entropy,"
         "total_loss,clip_fraction,explained_variance,approx_kl,gradient_norm,"
         "ratio_check_max,ratio_check_mean,weights_change_l2,collect_seconds,"
         "update_seconds,rolled_back,anomalies\n";
}

std::string UpdateCsvLine(const UpdateReport& update,
                          const UpdateRecord& record) {
  return Line({absl::StrCat(record.number),
               absl::StrCat(update.policy_version),
               absl::StrCat(record.episodes),
               absl::StrCat(update.transitions),
               absl::StrCat(update.passes),
               absl::StrCat(update.optimizer_steps),
               update.kl_stopped ? "1" : "0",
               absl::StrCat(update.skipped_nonfinite),
               Number(record.mean_return),
               Number(record.mean_host_accuracy),
               Number(record.mean_host_accuracy_without_seeds),
               Metric(update, "policy"),
               Metric(update, "value"),
               Metric(update, "entropy"),
               Metric(update, "total"),
               Metric(update, "clip_fraction"),
               Metric(update, "explained_variance"),
               Number(update.approx_kl),
               Number(update.gradient_norm),
               Number(update.ratio_check_max),
               Number(update.ratio_check_mean),
               Number(update.weights_change_l2),
               Number(record.collect_seconds),
               Number(record.update_seconds),
               update.rolled_back ? "1" : "0",
               Quoted(absl::StrJoin(update.anomalies, " "))});
}

std::map<std::string, double> UpdateScalars(const UpdateReport& update,
                                            const UpdateRecord& record) {
  std::map<std::string, double> scalars = {
      {"return/mean", record.mean_return},
      {"host_accuracy/mean", record.mean_host_accuracy},
      {"host_accuracy/mean_without_seeds",
       record.mean_host_accuracy_without_seeds},
      {"update/policy_version", static_cast<double>(update.policy_version)},
      {"update/episodes", static_cast<double>(record.episodes)},
      {"update/transitions", static_cast<double>(update.transitions)},
      {"update/passes", update.passes},
      {"update/optimizer_steps", update.optimizer_steps},
      {"update/kl_stopped", update.kl_stopped},
      {"update/skipped_nonfinite", update.skipped_nonfinite},
      {"update/rolled_back", update.rolled_back},
      {"update/anomalies", static_cast<double>(update.anomalies.size())},
      {"update/approx_kl", update.approx_kl},
      {"update/gradient_norm", update.gradient_norm},
      {"update/weights_change_l2", update.weights_change_l2},
      {"time/collect_seconds", record.collect_seconds},
      {"time/update_seconds", record.update_seconds}};
  if (update.ratio_check_max >= 0) {
    scalars["update/ratio_check_max"] = update.ratio_check_max;
    scalars["update/ratio_check_mean"] = update.ratio_check_mean;
  }
  for (const auto& [name, value] : update.metrics) {
    const bool by_head = absl::StrContains(name, '.');
    scalars[by_head ? absl::StrReplaceAll(name, {{".", "/"}})
                    : absl::StrCat("metric/", name)] = value;
  }
  for (auto it = scalars.begin(); it != scalars.end();) {
    it = std::isfinite(it->second) ? std::next(it) : scalars.erase(it);
  }
  return scalars;
}

std::map<std::string, double> EvaluationScalars(
    const std::vector<FinishedEpisode>& episodes) {
  std::map<std::string, double> scalars;
  const double share = 1.0 / static_cast<double>(episodes.size());
  for (const FinishedEpisode& episode : episodes) {
    const v1::EpisodeSummary& s = episode.summary;
    scalars["evaluation/return"] += share * s.episode_return();
    scalars["evaluation/host_accuracy"] += share * s.host_accuracy();
    scalars["evaluation/host_accuracy_without_seeds"] +=
        share * s.host_accuracy_without_seeds();
    scalars["evaluation/steps"] += share * s.steps();
    scalars["evaluation/seeds_fossilized"] += share * s.seeds_fossilized();
    scalars["evaluation/total_params"] +=
        share * static_cast<double>(s.total_params());
  }
  return scalars;
}

std::string ConfigMarkdown(const nlohmann::ordered_json& config) {
  return absl::StrCat("```json\n", config.dump(2), "\n```");
}

std::string StepsLine(const FinishedEpisode& episode) {
  Json steps = Json::array();
  for (const v1::StepReport& step : episode.steps) {
    steps.push_back(ToJson(step));
  }
  const Json json = {{"episode", episode.lease.episode},
                     {"seed", episode.lease.seed},
                     {"policy_version", episode.policy_version},
                     {"steps", steps}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace esper::client
