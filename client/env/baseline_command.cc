#include "client/env/baseline_command.h"

#include <cmath>
#include <fstream>
#include <iostream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/env/episode_config.h"
#include "core/env/episode_policy.h"
#include "core/env/episode_runner.h"
#include "core/stats/mean_interval.h"
#include "core/stats/paired_comparison.h"
#include "nlohmann/json.hpp"

namespace esper::client {
namespace {

using Json = nlohmann::ordered_json;

// JSON has no infinity: null.
Json Number(double value) {
  return std::isfinite(value) ? Json(value) : Json();
}

Json ToJson(const env::EpisodeRecord& record, const std::string& baseline) {
  const env::EpisodeSummary& summary = record.summary;
  Json parts = Json::object();
  for (const auto& [name, sum] : record.part_sums) {
    if (sum != 0) parts[name] = sum;
  }
  return {{"baseline", baseline},
          {"options", record.arm},
          {"episode", record.episode},
          {"seed", record.seed},
          {"return", summary.episode_return},
          {"reward_parts", parts},
          {"steps", summary.steps},
          {"end_reason", summary.end_reason},
          {"val_accuracy", summary.final_val_accuracy},
          {"accuracy", summary.host_accuracy},
          {"accuracy_without_seeds", summary.host_accuracy_without_seeds},
          {"seeds_germinated", summary.seeds_germinated},
          {"seeds_blended", summary.seeds_blended},
          {"seeds_fossilized", summary.seeds_fossilized},
          {"seeds_contributing", summary.seeds_contributing},
          {"seeds_pruned", summary.seeds_pruned},
          {"host_params", summary.host_params},
          {"total_params", summary.total_params},
          {"wall_seconds", summary.wall_seconds}};
}

Json ToJson(const stats::MeanInterval& interval) {
  return {{"mean", interval.mean},
          {"low", Number(interval.low)},
          {"high", Number(interval.high)},
          {"deviation", interval.deviation}};
}

Json ToJson(const stats::PairedComparison& comparison) {
  return {{"difference", ToJson(comparison.difference())},
          {"t", Number(comparison.t_statistic())},
          {"p", comparison.p_value()},
          {"higher", stats::VerdictName(comparison.verdict())}};
}

// What one set of options came to.
struct ArmResults {
  std::vector<double> returns;
  std::vector<double> accuracies;
  double wall_seconds = 0;
  int64_t steps = 0;

  void Add(const env::EpisodeSummary& summary) {
    returns.push_back(summary.episode_return);
    accuracies.push_back(summary.host_accuracy);
    wall_seconds += summary.wall_seconds;
    steps += summary.steps;
  }
};

absl::StatusOr<Json> Compare(const ArmResults& first,
                             const ArmResults& second) {
  auto returns = stats::PairedComparison::Create(first.returns, second.returns);
  if (!returns.ok()) return returns.status();
  auto accuracies =
      stats::PairedComparison::Create(first.accuracies, second.accuracies);
  if (!accuracies.ok()) return accuracies.status();
  return Json{{"return", ToJson(*returns)}, {"accuracy", ToJson(*accuracies)}};
}

absl::StatusOr<std::vector<env::EpisodeRunner::Arm>> MakeArms(
    const BaselineCommand& command, std::shared_ptr<const env::Task> task) {
  absl::Status known = env::MakeBaseline(command.baseline).status();
  if (!known.ok()) return known;
  env::EpisodeConfig defaults = env::EpisodeConfig::For(std::move(task));
  defaults.max_epochs = command.max_epochs;
  std::vector<std::string> options = {command.env_options};
  if (!command.compare_env_options.empty()) {
    options.push_back(command.compare_env_options);
    if (command.episodes < stats::PairedComparison::kMinPairs) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a comparison needs at least ",
          static_cast<int>(stats::PairedComparison::kMinPairs), " episodes"));
    }
  }
  std::vector<env::EpisodeRunner::Arm> arms;
  for (const std::string& text : options) {
    auto config = env::EpisodeConfigFromJson(text, defaults);
    if (config.ok()) {
      absl::Status status = config->Validate();
      if (!status.ok()) config = status;
    }
    if (!config.ok()) return config.status();
    arms.push_back({*std::move(config), [name = command.baseline] {
                      return env::MakeBaseline(name).value();
                    }});
  }
  return arms;
}

}  // namespace

absl::StatusOr<std::string> RunBaseline(const BaselineCommand& command,
                                        std::shared_ptr<const env::Task> task,
                                        const std::function<bool()>& stopped) {
  const std::string task_name = task->name;
  auto arms = MakeArms(command, std::move(task));
  if (!arms.ok()) return arms.status();
  std::vector<ArmResults> results(arms->size());
  env::EpisodeRunner::Options options;
  options.episodes = command.episodes;
  options.root_seed = command.root_seed;
  options.threads = command.threads;
  auto runner = env::EpisodeRunner::Create(*std::move(arms), options);
  if (!runner.ok()) return runner.status();

  std::ofstream file;
  if (!command.output.empty()) file.open(command.output);
  std::ostream& out = command.output.empty() ? std::cout : file;
  const auto unwritable = [&command] {
    return absl::UnavailableError(
        absl::StrCat("cannot write to \"", command.output, "\""));
  };
  if (!out) return unwritable();
  absl::Status status =
      runner->Run([&](const env::EpisodeRecord& record) -> absl::Status {
        results[record.arm].Add(record.summary);
        out << ToJson(record, command.baseline).dump() << std::endl;
        if (!out) return unwritable();
        if (stopped != nullptr && stopped()) {
          return absl::CancelledError("told to stop");
        }
        return absl::OkStatus();
      });
  if (!status.ok()) return status;

  Json summary = {{"task", task_name},
                  {"baseline", command.baseline},
                  {"episodes", command.episodes},
                  {"max_epochs", command.max_epochs},
                  {"results", Json::array()}};
  for (const ArmResults& arm : results) {
    summary["results"].push_back(
        {{"return", ToJson(stats::MeanWithInterval(arm.returns))},
         {"accuracy", ToJson(stats::MeanWithInterval(arm.accuracies))},
         {"epochs_per_second", arm.steps / arm.wall_seconds}});
  }
  if (results.size() == 2) {
    auto comparison = Compare(results[0], results[1]);
    if (!comparison.ok()) return comparison.status();
    summary["comparison"] = *comparison;
  }
  return summary.dump();
}

}  // namespace esper::client
