#include "proto/config/training_config.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/nearest_name.h"
#include "proto/config/embedded.h"
#include "proto/config/field_rules.h"

namespace esper::config {
namespace {

constexpr char kDefaultProfile[] = "default";

// One layer, and what to call it in errors.
struct Layer {
  std::string source;
  Json json;
};

absl::Status From(const std::string& source, const absl::Status& status) {
  absl::Status named(status.code(),
                     absl::StrCat(source, ": ", status.message()));
  status.ForEachPayload(
      [&named](absl::string_view url, const absl::Cord& payload) {
        named.SetPayload(url, payload);
      });
  return named;
}

absl::StatusOr<Json> ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  if (!(text << file.rdbuf())) {
    return absl::NotFoundError("the file cannot be read, or is empty");
  }
  if (absl::EndsWith(path, ".textproto") || absl::EndsWith(path, ".txtpb")) {
    return ParseProtoText(text.str(), v1::TrainingConfig());
  }
  return ParseJson(text.str());
}

absl::Status AddLayer(const std::string& source, absl::StatusOr<Json> json,
                      std::vector<Layer>* layers) {
  if (!json.ok()) return From(source, json.status());
  // On its own first, so that an error names its source.
  v1::TrainingConfig config;
  absl::Status status = MergeJson(*json, &config);
  if (status.ok()) status = CheckFields(config, "");
  if (!status.ok()) return From(source, status);
  layers->push_back({source, *std::move(json)});
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Layer>> ReadLayers(const ConfigSources& sources) {
  std::vector<Layer> layers;
  absl::Status status;
  if (!sources.profile.empty()) {
    status = AddLayer("--profile", Json{{"profile", sources.profile}}, &layers);
  }
  if (status.ok() && !sources.preset.empty()) {
    auto text = PresetText(sources.preset);
    status = AddLayer(absl::StrCat("preset ", sources.preset),
                      text.ok() ? ParseJson(*text) : text.status(), &layers);
  }
  if (status.ok() && !sources.file.empty()) {
    status = AddLayer(sources.file, ReadFile(sources.file), &layers);
  }
  for (const std::string& assignment : sources.assignments) {
    if (!status.ok()) break;
    status = AddLayer(assignment, ParseAssignment(assignment), &layers);
  }
  if (!status.ok()) return status;
  return layers;
}

// The one profile that the layers name.
absl::StatusOr<std::string> FindProfile(const std::vector<Layer>& layers) {
  const Layer* first = nullptr;
  for (const Layer& layer : layers) {
    if (!layer.json.contains("profile")) continue;
    if (first == nullptr) {
      first = &layer;
    } else if (first->json["profile"] != layer.json["profile"]) {
      return absl::InvalidArgumentError(absl::StrCat(
          "profile: ", first->source, " says ", first->json["profile"].dump(),
          ", ", layer.source, " says ", layer.json["profile"].dump(),
          "; every field of the one would override the other."));
    }
  }
  if (first == nullptr) return std::string(kDefaultProfile);
  return first->json["profile"].get<std::string>();
}

absl::Status MergeProfile(const std::string& name, v1::TrainingConfig* config) {
  const auto json = ParseJson(EmbeddedProfiles().at(name));
  return json.ok() ? MergeJson(*json, config) : json.status();
}

absl::Status Impossible(const std::string& what) {
  return absl::InvalidArgumentError(what);
}

}  // namespace

absl::StatusOr<v1::TrainingConfig> LoadConfig(const ConfigSources& sources) {
  const auto layers = ReadLayers(sources);
  if (!layers.ok()) return layers.status();
  const auto profile = FindProfile(*layers);
  if (!profile.ok()) return profile.status();
  v1::TrainingConfig config;
  absl::Status status = MergeProfile(kDefaultProfile, &config);
  if (status.ok() && *profile != kDefaultProfile) {
    status = MergeProfile(*profile, &config);
  }
  for (const Layer& layer : *layers) {
    if (status.ok()) status = MergeJson(layer.json, &config);
  }
  if (!status.ok()) return status;
  status = CheckCombination(config);
  if (!status.ok()) return status;
  return config;
}

absl::Status CheckCombination(const v1::TrainingConfig& config) {
  const v1::RunConfig& run = config.run();
  const v1::PpoLoss& ppo = config.ppo();
  const v1::UpdateConfig& update = config.update();
  const v1::LearnerConfig& learner = config.learner();
  if (run.max_epochs() > learner.max_episode_length()) {
    return Impossible(absl::StrCat(
        "run.max_epochs = ", run.max_epochs(),
        " is longer than learner.max_episode_length = ",
        learner.max_episode_length(),
        ": the server would refuse every episode. Raise the second, in the "
        "configuration of esper_server too."));
  }
  if (MinEpisodes(run) > run.episodes_per_update()) {
    return Impossible(absl::StrCat("run.min_episodes = ", run.min_episodes(),
                                   " is more than run.episodes_per_update = ",
                                   run.episodes_per_update(), "."));
  }
  if (update.minibatches() > MinEpisodes(run)) {
    return Impossible(absl::StrCat(
        "update.minibatches = ", update.minibatches(),
        " is more than the episodes of an update, which may be only "
        "run.min_episodes = ",
        MinEpisodes(run), ": an episode is never cut."));
  }
  if (learner.reward_scaling() == v1::REWARD_SCALING_UPSTREAM &&
      update.minibatches() > 1) {
    return Impossible(
        "learner.reward_scaling = upstream needs whole batches: set "
        "update.minibatches to 1.");
  }
  if (ppo.value_clip() > 0 && update.passes() * update.minibatches() > 1) {
    return Impossible(absl::StrCat(
        "ppo.value_clip = ", ppo.value_clip(), " with ",
        update.passes() * update.minibatches(),
        " optimiser steps an update would clip around the values of the first "
        "step throughout. Set it to 0, or update.passes and "
        "update.minibatches to 1."));
  }
  if (ppo.entropy_anneal_updates() == 0 &&
      ppo.entropy_coef() < ppo.entropy_coef_min()) {
    return Impossible(absl::StrCat(
        "ppo.entropy_coef = ", ppo.entropy_coef(),
        " is below ppo.entropy_coef_min = ", ppo.entropy_coef_min(),
        ", which would win. Lower both."));
  }
  if (ppo.ratio_refuse() < ppo.ratio_alarm()) {
    return Impossible(
        absl::StrCat("ppo.ratio_refuse = ", ppo.ratio_refuse(),
                     " is below ppo.ratio_alarm = ", ppo.ratio_alarm(), "."));
  }
  return absl::OkStatus();
}

int MinEpisodes(const v1::RunConfig& run) {
  if (run.min_episodes() > 0) return run.min_episodes();
  return (run.episodes_per_update() + 1) / 2;
}

std::vector<std::string> SplitAssignments(const std::string& text) {
  std::vector<std::string> parts(1);
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"' && (i == 0 || text[i - 1] != '\\')) quoted = !quoted;
    if (!quoted && (c == '[' || c == '{')) ++depth;
    if (!quoted && (c == ']' || c == '}')) --depth;
    if (c == ',' && !quoted && depth == 0) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  if (parts.back().empty()) parts.pop_back();
  return parts;
}

absl::StatusOr<Json> ParseAssignment(const std::string& text) {
  const std::pair<std::string, std::string> sides =
      absl::StrSplit(text, absl::MaxSplits('=', 1));
  const std::vector<std::string> path = absl::StrSplit(sides.first, '.');
  if (!absl::StrContains(text, '=') ||
      std::count(path.begin(), path.end(), "") > 0) {
    return absl::InvalidArgumentError(
        "is no assignment; write PATH=VALUE, like ppo.gamma=0.99");
  }
  Json json = Json::parse(sides.second, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) json = sides.second;
  for (auto name = path.rbegin(); name != path.rend(); ++name) {
    json = Json{{*name, std::move(json)}};
  }
  return json;
}

std::vector<std::string> PresetNames() {
  std::vector<std::string> names;
  for (const auto& [name, text] : EmbeddedPresets()) names.push_back(name);
  return names;
}

absl::StatusOr<std::string> PresetText(const std::string& name) {
  const auto found = EmbeddedPresets().find(name);
  if (found != EmbeddedPresets().end()) return found->second;
  return absl::NotFoundError(
      absl::StrCat("there is no such preset; the nearest is ",
                   NearestName(name, PresetNames()), ", known are ",
                   absl::StrJoin(PresetNames(), ", ")));
}

}  // namespace esper::config
