#include "core/env/episode_config.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace esper::env {
namespace {

using nlohmann::json;

absl::Status Invalid(const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("episode options: ", what));
}

// Levenshtein distance, for suggesting a name.
int EditDistance(const std::string& a, const std::string& b) {
  std::vector<int> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const int substitute = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row.back();
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
            {"frozen", TrainerOptions::Fossil::kFrozen}},
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
  const auto& readers = Readers();
  return std::min_element(readers.begin(), readers.end(),
                          [&key](const auto& a, const auto& b) {
                            return EditDistance(key, a.first) <
                                   EditDistance(key, b.first);
                          })
      ->first;
}

}  // namespace

EpisodeConfig EpisodeConfig::For(std::shared_ptr<const Task> task) {
  EpisodeConfig config;
  config.trainer = task->trainer;
  config.loss_reward = task->loss_reward;
  config.governor.random_guess_loss = std::log(task->num_classes);
  config.task = std::move(task);
  return config;
}

absl::Status EpisodeConfig::Validate() const {
  if (task == nullptr) return Invalid("no task");
  if (max_epochs < 1) return Invalid("max_epochs must be at least 1");
  if (max_seeds < 0) return Invalid("max_seeds must not be negative");
  if (trainer.gradient_stride < 1) {
    return Invalid("gradient_stride must be at least 1");
  }
  const int64_t train = task->train->size();
  const int64_t reward_samples = task->reward->size();
  if (trainer.samples_per_epoch < 0 || trainer.samples_per_epoch > train) {
    return Invalid(absl::StrCat("samples_per_epoch must be in 0..", train));
  }
  if (trainer.val_samples < 0 || trainer.val_samples > reward_samples) {
    return Invalid(absl::StrCat("val_samples must be in 0..", reward_samples));
  }
  const int64_t per_epoch =
      trainer.samples_per_epoch > 0 ? trainer.samples_per_epoch : train;
  if (task->batch_size < 1 || per_epoch < task->batch_size) {
    return Invalid(absl::StrCat("an epoch of ", per_epoch,
                                " samples has no whole batch of ",
                                task->batch_size));
  }
  for (double rate : {trainer.host_lr, trainer.seed_lr}) {
    if (!(rate > 0)) return Invalid("learning rates must be positive");
  }
  absl::StatusOr<Governor> checked = Governor::Create(governor);
  if (!checked.ok()) return checked.status();
  return reward.Validate();
}

absl::StatusOr<EpisodeConfig> EpisodeConfigFromJson(const std::string& text,
                                                    const EpisodeConfig& base) {
  EpisodeConfig config = base;
  if (text.empty()) return config;
  const json object =
      json::parse(text, /*cb=*/nullptr, /*allow_exceptions=*/false,
                  /*ignore_comments=*/true);
  if (!object.is_object()) return Invalid("expected a JSON object");
  for (const auto& [key, value] : object.items()) {
    const auto reader = Readers().find(key);
    if (reader == Readers().end()) {
      return Invalid(absl::StrCat("unknown option \"", key,
                                  "\"; the nearest is \"", Nearest(key), "\""));
    }
    absl::Status status = reader->second(value, &config);
    if (!status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat("\"", key, "\": ", status.message()));
    }
  }
  absl::Status status = config.Validate();
  if (!status.ok()) return status;
  return config;
}

}  // namespace esper::env
