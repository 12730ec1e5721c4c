#include "client/trainer/trainer_flags.h"

#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"

ABSL_FLAG(std::string, profile, "",
          "default (what is believed to learn) or upstream (the reference "
          "implementation's behaviour); empty: what the configuration says.");
ABSL_FLAG(std::string, preset, "",
          "Settings to begin with: cifar_baseline, cifar_baseline_stable, "
          "cifar_scale, digits, text or tinystories.");
ABSL_FLAG(std::string, config, "",
          "Configuration file over the preset: JSON with // comments, or proto "
          "text (.textproto). See --print_schema.");
ABSL_FLAG(std::string, set, "",
          "Assignments over the file, like ppo.gamma=0.99,run.seed=7.");

// A flag that is short for --set=PATH=VALUE.
#define SHORT_FLAG(name, path, help) \
  ABSL_FLAG(std::string, name, "", help " Short for --set=" path "=VALUE.")

SHORT_FLAG(task, "run.task",
           "Task of the environments: cifar10, digits, mnist or text. The "
           "workers have the data.");
SHORT_FLAG(max_epochs, "run.max_epochs", "Length of an episode, host epochs.");
SHORT_FLAG(env_options, "environment",
           "Environment options as a JSON object, like "
           "{\"samples_per_epoch\": 512}.");
SHORT_FLAG(seed, "run.seed", "Root of the seeds of all episodes.");
SHORT_FLAG(minutes, "run.minutes", "Stops after so much training.");
SHORT_FLAG(updates, "run.updates", "Stops after so many updates.");
SHORT_FLAG(episodes_per_update, "run.episodes_per_update",
           "Episodes of one update.");
SHORT_FLAG(min_episodes, "run.min_episodes",
           "Updates with so many if others are late.");
SHORT_FLAG(collect_deadline, "run.collect_deadline",
           "How long to wait for late episodes, like 5m.");
SHORT_FLAG(worker_lease, "run.worker_lease",
           "A worker that is silent for longer loses its episodes.");
SHORT_FLAG(workers, "run.workers",
           "Workers to wait for before the first round.");
SHORT_FLAG(server_patience, "run.server_patience",
           "How long to wait for a policy server that is gone.");
SHORT_FLAG(checkpoint_every, "run.checkpoint_every",
           "Updates between checkpoints; 0: only at the end.");
SHORT_FLAG(evaluation_every, "run.evaluation_every",
           "Updates between evaluations; 0: none.");
SHORT_FLAG(evaluation_episodes, "run.evaluation_episodes",
           "Episodes of one evaluation.");
SHORT_FLAG(passes, "update.passes", "Passes of one update.");
SHORT_FLAG(minibatches, "update.minibatches", "Optimiser steps of one pass.");
SHORT_FLAG(learning_rate, "update.learning_rate", "Of Adam.");
SHORT_FLAG(max_grad_norm, "update.max_grad_norm", "Clip of the gradient.");
SHORT_FLAG(clip_ratio, "ppo.clip_ratio", "Of PPO.");
SHORT_FLAG(value_coef, "ppo.value_coef", "Of the value loss.");
SHORT_FLAG(entropy_coef, "ppo.entropy_coef", "Of the entropy bonus.");
SHORT_FLAG(gamma, "ppo.gamma", "Discount.");
SHORT_FLAG(gae_lambda, "ppo.gae_lambda", "Of the advantage estimate.");
SHORT_FLAG(target_kl, "ppo.target_kl", "Divergence that ends the passes.");
SHORT_FLAG(contribution_coef, "ppo.contribution_coef",
           "Of the contribution loss.");

namespace esper::client {
namespace {

using StringFlag = absl::Flag<std::string>;

const std::vector<std::pair<std::string, const StringFlag*>>& ShortFlags() {
  static const auto& flags =
      *new std::vector<std::pair<std::string, const StringFlag*>>{
          {"run.task", &FLAGS_task},
          {"run.max_epochs", &FLAGS_max_epochs},
          {"environment", &FLAGS_env_options},
          {"run.seed", &FLAGS_seed},
          {"run.minutes", &FLAGS_minutes},
          {"run.updates", &FLAGS_updates},
          {"run.episodes_per_update", &FLAGS_episodes_per_update},
          {"run.min_episodes", &FLAGS_min_episodes},
          {"run.collect_deadline", &FLAGS_collect_deadline},
          {"run.worker_lease", &FLAGS_worker_lease},
          {"run.workers", &FLAGS_workers},
          {"run.server_patience", &FLAGS_server_patience},
          {"run.checkpoint_every", &FLAGS_checkpoint_every},
          {"run.evaluation_every", &FLAGS_evaluation_every},
          {"run.evaluation_episodes", &FLAGS_evaluation_episodes},
          {"update.passes", &FLAGS_passes},
          {"update.minibatches", &FLAGS_minibatches},
          {"update.learning_rate", &FLAGS_learning_rate},
          {"update.max_grad_norm", &FLAGS_max_grad_norm},
          {"ppo.clip_ratio", &FLAGS_clip_ratio},
          {"ppo.value_coef", &FLAGS_value_coef},
          {"ppo.entropy_coef", &FLAGS_entropy_coef},
          {"ppo.gamma", &FLAGS_gamma},
          {"ppo.gae_lambda", &FLAGS_gae_lambda},
          {"ppo.target_kl", &FLAGS_target_kl},
          {"ppo.contribution_coef", &FLAGS_contribution_coef},
      };
  return flags;
}

}  // namespace

config::ConfigSources SourcesFromFlags(const std::string& otherwise) {
  config::ConfigSources sources;
  sources.profile = absl::GetFlag(FLAGS_profile);
  sources.preset = absl::GetFlag(FLAGS_preset);
  sources.file = absl::GetFlag(FLAGS_config);
  if (sources.file.empty()) sources.file = otherwise;
  sources.assignments = config::SplitAssignments(absl::GetFlag(FLAGS_set));
  for (const auto& [path, flag] : ShortFlags()) {
    const std::string value = absl::GetFlag(*flag);
    if (value.empty()) continue;
    sources.assignments.push_back(absl::StrCat(path, "=", value));
  }
  return sources;
}

}  // namespace esper::client
