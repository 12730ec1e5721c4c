#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/env/episode_config.h"
#include "core/nearest_name.h"
#include "nlohmann/json.hpp"

namespace esper::env {
namespace {

using nlohmann::json;

absl::Status Invalid(const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("episode options: ", what));
}

// How one key is read into a config.
using Reader = std::function<absl::Status(const json&, EpisodeConfig*)>;

Reader Bool(bool EpisodeConfig::*field) {
  return [field](const json& value, EpisodeConfig* config) {
    if (!value.is_boolean()) return Invalid("expected true or false");
    config->*field = value.get<bool>();
    return absl::OkStatus();
  };
}

// An integer; EpisodeConfig::Validate checks the range.
template <typename Set>
Reader Integer(Set set) {
  return [set](const json& value, EpisodeConfig* config) {
    if (!value.is_number_integer()) return Invalid("expected an integer");
    const int64_t number = value.get<int64_t>();
    if (number < 0 || number > (int64_t{1} << 31) - 1) {
      return Invalid(absl::StrCat(number, " is not in 0..2^31-1"));
    }
    set(config, number);
    return absl::OkStatus();
  };
}

template <typename Set>
Reader Number(Set set) {
  return [set](const json& value, EpisodeConfig* config) {
    if (!value.is_number()) return Invalid("expected a number");
    set(config, value.get<double>());
    return absl::OkStatus();
  };
}

template <typename E, typename Set>
Reader Choice(std::map<std::string, E> names, Set set) {
  return [names, set](const json& value, EpisodeConfig* config) {
    std::string known;
    for (const auto& [name, choice] : names) {
      if (value.is_string() && value.get<std::string>() == name) {
        set(config, choice);
        return absl::OkStatus();
      }
      absl::StrAppend(&known, known.empty() ? "" : ", ", name);
    }
    return Invalid(absl::StrCat("expected one of: ", known));
  };
}

const std::map<std::string, Reader>& Readers() {
  static const auto* const kReaders = new std::map<std::string, Reader>{
      {"max_seeds", Integer([](EpisodeConfig* c, int64_t v) {
         c->max_seeds = v;
       })},
      {"permissive_gates", Bool(&EpisodeConfig::permissive_gates)},
      {"auto_forward_g1", Bool(&EpisodeConfig::auto_forward_g1)},
      {"auto_forward_g2", Bool(&EpisodeConfig::auto_forward_g2)},
      {"auto_forward_g3", Bool(&EpisodeConfig::auto_forward_g3)},
      {"samples_per_epoch", Integer([](EpisodeConfig* c, int64_t v) {
         c->trainer.samples_per_epoch = v;
       })},
      {"val_samples", Integer([](EpisodeConfig* c, int64_t v) {
         c->trainer.val_samples = v;
       })},
      {"gradient_stride", Integer([](EpisodeConfig* c, int64_t v) {
         c->trainer.gradient_stride = static_cast<int>(v);
       })},
      {"max_grad_norm", Number([](EpisodeConfig* c, double v) {
         c->trainer.max_grad_norm = v;
       })},
      {"host_lr", Number([](EpisodeConfig* c, double v) {
         c->trainer.host_lr = v;
       })},
      {"seed_lr", Number([](EpisodeConfig* c, double v) {
         c->trainer.seed_lr = v;
       })},
      {"fossil",
       Choice<TrainerOptions::Fossil>(
           {{"join_host", TrainerOptions::Fossil::kJoinHost},
            {"frozen", TrainerOptions::Fossil::kFrozen},
            {"own_optimizer", TrainerOptions::Fossil::kOwnOptimizer}},
           [](EpisodeConfig* c, TrainerOptions::Fossil v) {
             c->trainer.fossil = v;
           })},
      {"reward_family",
       Choice<EpisodeConfig::RewardFamily>(
           {{"contribution", EpisodeConfig::RewardFamily::kContribution},
            {"loss", EpisodeConfig::RewardFamily::kLoss}},
           [](EpisodeConfig* c, EpisodeConfig::RewardFamily v) {
             c->reward_family = v;
           })},
      {"rollback_rewards",
       Choice<EpisodeConfig::RollbackRewards>(
           {{"kept", EpisodeConfig::RollbackRewards::kKept},
            {"forfeited", EpisodeConfig::RollbackRewards::kForfeited}},
           [](EpisodeConfig* c, EpisodeConfig::RollbackRewards v) {
             c->rollback_rewards = v;
           })},
      {"reward_timing",
       Choice<EpisodeConfig::RewardTiming>(
           {{"outcome", EpisodeConfig::RewardTiming::kOutcome},
            {"intent", EpisodeConfig::RewardTiming::kIntent}},
           [](EpisodeConfig* c, EpisodeConfig::RewardTiming v) {
             c->reward_timing = v;
           })},
      {"loss_delta",
       Choice<EpisodeConfig::LossDelta>(
           {{"new_minus_old", EpisodeConfig::LossDelta::kNewMinusOld},
            {"old_minus_new", EpisodeConfig::LossDelta::kOldMinusNew}},
           [](EpisodeConfig* c, EpisodeConfig::LossDelta v) {
             c->loss_delta = v;
           })},
      {"tracking",
       Choice<policy::ObservationTracking::Freshness>(
           {{"measured", policy::ObservationTracking::Freshness::kMeasured},
            {"upstream", policy::ObservationTracking::Freshness::kUpstream}},
           [](EpisodeConfig* c, policy::ObservationTracking::Freshness v) {
             c->freshness = v;
           })},
      {"init_profile",
       Choice<slot::InitProfile>(
           {{"live", slot::InitProfile::kLive},
            {"upstream", slot::InitProfile::kUpstream}},
           [](EpisodeConfig* c, slot::InitProfile v) { c->init_profile = v; })},
      {"profile",
       Choice<EpisodeConfig::Profile>(
           {{"default", EpisodeConfig::Profile::kDefault},
            {"upstream", EpisodeConfig::Profile::kUpstream}},
           [](EpisodeConfig* c, EpisodeConfig::Profile v) {
             c->UseProfile(v);
           })},
      {"control",
       [](const json& value, EpisodeConfig* config) {
         if (!value.is_string()) return Invalid("expected a name");
         const std::string name = value.get<std::string>();
         config->control.reset();
         if (name == "none") return absl::OkStatus();
         absl::StatusOr<ControlSchedule> control =
             ControlSchedule::ByName(name);
         if (!control.ok()) return control.status();
         config->control = *std::move(control);
         return absl::OkStatus();
       }},
      {"reward",
       [](const json& value, EpisodeConfig* config) {
         absl::StatusOr<RewardConfig> reward =
             RewardConfigFromJson(value, config->reward);
         if (!reward.ok()) return reward.status();
         config->reward = *std::move(reward);
         return absl::OkStatus();
       }},
      {"loss_preset",
       [](const json& value, EpisodeConfig* config) {
         if (!value.is_string()) return Invalid("expected a name");
         absl::StatusOr<LossRewardConfig> preset =
             LossRewardConfig::Preset(value.get<std::string>());
         if (!preset.ok()) return preset.status();
         config->loss_reward = *std::move(preset);
         return absl::OkStatus();
       }},
  };
  return *kReaders;
}

std::string Nearest(const std::string& key) {
  std::vector<std::string> known;
  for (const auto& [name, reader] : Readers()) known.push_back(name);
  return NearestName(key, known);
}

absl::Status Read(const std::string& key, const json& value,
                  EpisodeConfig* config) {
  const auto reader = Readers().find(key);
  if (reader == Readers().end()) {
    return Invalid(absl::StrCat("unknown option \"", key,
                                "\"; the nearest is \"", Nearest(key), "\""));
  }
  absl::Status status = reader->second(value, config);
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat("\"", key, "\": ", status.message()));
}

}  // namespace

absl::StatusOr<EpisodeConfig> EpisodeConfigFromJson(const std::string& text,
                                                    const EpisodeConfig& base) {
  EpisodeConfig config = base;
  if (text.empty()) return config;
  const json object =
      json::parse(text, /*cb=*/nullptr, /*allow_exceptions=*/false,
                  /*ignore_comments=*/true);
  if (!object.is_object()) return Invalid("expected a JSON object");
  // The profile first: other keys override it.
  if (object.contains("profile")) {
    absl::Status status = Read("profile", object["profile"], &config);
    if (!status.ok()) return status;
  }
  for (const auto& [key, value] : object.items()) {
    if (key == "profile") continue;
    absl::Status status = Read(key, value, &config);
    if (!status.ok()) return status;
  }
  absl::Status status = config.Validate();
  if (!status.ok()) return status;
  return config;
}

}  // namespace esper::env
