#include "client/trainer/trainer_flags.h"

#include <cstdint>
#include <optional>
#include <string>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "client/task_names.h"

// What the run does.
ABSL_FLAG(std::string, task, "digits",
          "Task of the environments: cifar10, digits, mnist or text. The "
          "workers have the data.");
ABSL_FLAG(int32_t, max_epochs, 50, "Length of an episode, host epochs.");
ABSL_FLAG(
    std::string, env_options, "",
    "Environment options as a JSON object, like {\"samples_per_epoch\": 512}; "
    "empty: defaults.");
ABSL_FLAG(uint64_t, seed, 42, "Root of the seeds of all episodes.");
ABSL_FLAG(double, minutes, 0,
          "Stops after so much training; 0: no limit. Set-up does not count. "
          "With no limit here and in --updates, the run goes on until it is "
          "stopped (SIGINT, SIGTERM).");
ABSL_FLAG(int64_t, updates, 0,
          "Stops after so many updates; 0: no limit. See --minutes.");

// Rounds.
ABSL_FLAG(int32_t, episodes_per_update, 8, "Episodes of one update.");
ABSL_FLAG(int32_t, min_episodes, 0,
          "Updates with so many if others are late; 0: half of "
          "--episodes_per_update.");
ABSL_FLAG(absl::Duration, collect_deadline, absl::Minutes(5),
          "How long to wait for late episodes.");
ABSL_FLAG(absl::Duration, worker_lease, absl::Seconds(30),
          "A worker that is silent for longer loses its episodes.");
ABSL_FLAG(int32_t, workers, 1, "Workers to wait for before the first round.");
ABSL_FLAG(absl::Duration, server_patience, absl::Minutes(2),
          "How long to wait for a policy server that is gone.");
ABSL_FLAG(int32_t, checkpoint_every, 10,
          "Updates between checkpoints; 0: only at the end.");
ABSL_FLAG(int32_t, evaluation_every, 0,
          "Updates between evaluations: episodes with deterministic actions, "
          "the same seeds every time, that nothing is trained on; 0: none.");
ABSL_FLAG(int32_t, evaluation_episodes, 4, "Episodes of one evaluation.");

// The update. Negative: the server's default.
ABSL_FLAG(int32_t, passes, 3, "Optimiser steps of one update.");
ABSL_FLAG(double, learning_rate, -1, "Of Adam; negative: server's default.");
ABSL_FLAG(double, max_grad_norm, -1, "Clip; negative: server's default.");
ABSL_FLAG(double, clip_ratio, -1, "Of PPO; negative: server's default.");
ABSL_FLAG(double, value_coef, -1, "Negative: server's default.");
ABSL_FLAG(double, entropy_coef, -1, "Negative: server's default.");
ABSL_FLAG(double, gamma, -1, "Discount; negative: server's default.");
ABSL_FLAG(double, gae_lambda, -1, "Negative: server's default.");
ABSL_FLAG(double, target_kl, -1,
          "Divergence that ends the passes; negative: server's default.");
ABSL_FLAG(double, contribution_coef, -1, "Negative: server's default.");

namespace esper::client {
namespace {

using Json = nlohmann::ordered_json;

absl::Status OutOfRange(const std::string& flag, const std::string& range) {
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, " must be ", range, "."));
}

absl::Status CheckFlags() {
  absl::Status task = CheckTaskName(absl::GetFlag(FLAGS_task));
  if (!task.ok()) return task;
  const int episodes = absl::GetFlag(FLAGS_episodes_per_update);
  if (episodes < 1) return OutOfRange("episodes_per_update", "at least 1");
  const int minimum = absl::GetFlag(FLAGS_min_episodes);
  if (minimum < 0 || minimum > episodes) {
    return OutOfRange("min_episodes", "in 0..--episodes_per_update");
  }
  if (absl::GetFlag(FLAGS_max_epochs) < 1) {
    return OutOfRange("max_epochs", "at least 1");
  }
  if (absl::GetFlag(FLAGS_passes) < 1) return OutOfRange("passes", ">= 1");
  if (!(absl::GetFlag(FLAGS_minutes) >= 0)) {
    return OutOfRange("minutes", "0 or more");
  }
  if (absl::GetFlag(FLAGS_updates) < 0) return OutOfRange("updates", ">= 0");
  if (absl::GetFlag(FLAGS_checkpoint_every) < 0) {
    return OutOfRange("checkpoint_every", "0 or more");
  }
  if (absl::GetFlag(FLAGS_evaluation_every) < 0) {
    return OutOfRange("evaluation_every", "0 or more");
  }
  if (absl::GetFlag(FLAGS_evaluation_episodes) < 1) {
    return OutOfRange("evaluation_episodes", "at least 1");
  }
  if (absl::GetFlag(FLAGS_worker_lease) < absl::Seconds(1)) {
    return OutOfRange("worker_lease", "at least 1s");
  }
  const std::string options = absl::GetFlag(FLAGS_env_options);
  if (!options.empty() && !nlohmann::json::parse(options, nullptr,
                                                 /*allow_exceptions=*/false)
                               .is_object()) {
    return OutOfRange("env_options", "a JSON object");
  }
  return absl::OkStatus();
}

v1::PpoLoss LossFromFlags() {
  v1::PpoLoss loss;
  const auto set = [&loss](double value, void (v1::PpoLoss::*setter)(double)) {
    if (value >= 0) (loss.*setter)(value);
  };
  set(absl::GetFlag(FLAGS_clip_ratio), &v1::PpoLoss::set_clip_ratio);
  set(absl::GetFlag(FLAGS_value_coef), &v1::PpoLoss::set_value_coef);
  set(absl::GetFlag(FLAGS_entropy_coef), &v1::PpoLoss::set_entropy_coef);
  set(absl::GetFlag(FLAGS_gamma), &v1::PpoLoss::set_gamma);
  set(absl::GetFlag(FLAGS_gae_lambda), &v1::PpoLoss::set_gae_lambda);
  set(absl::GetFlag(FLAGS_target_kl), &v1::PpoLoss::set_target_kl);
  set(absl::GetFlag(FLAGS_contribution_coef),
      &v1::PpoLoss::set_contribution_coef);
  return loss;
}

std::optional<double> IfSet(double value) {
  return value >= 0 ? std::optional<double>(value) : std::nullopt;
}

Json OrNull(bool has, double value) { return has ? Json(value) : Json(); }
Json OrNull(const std::optional<double>& value) {
  return value ? Json(*value) : Json();
}

}  // namespace

absl::StatusOr<TrainerSettings> SettingsFromFlags() {
  absl::Status status = CheckFlags();
  if (!status.ok()) return status;
  TrainerSettings settings;
  settings.scheduler.root_seed = absl::GetFlag(FLAGS_seed);
  settings.scheduler.lease = absl::GetFlag(FLAGS_worker_lease);

  settings.service.task = absl::GetFlag(FLAGS_task);
  settings.service.max_epochs = absl::GetFlag(FLAGS_max_epochs);
  settings.service.options_json = absl::GetFlag(FLAGS_env_options);
  settings.service.lease = settings.scheduler.lease;

  Trainer::Options& trainer = settings.trainer;
  trainer.episodes_per_update = absl::GetFlag(FLAGS_episodes_per_update);
  trainer.min_episodes = absl::GetFlag(FLAGS_min_episodes);
  if (trainer.min_episodes == 0) {
    trainer.min_episodes = (trainer.episodes_per_update + 1) / 2;
  }
  trainer.collect_deadline = absl::GetFlag(FLAGS_collect_deadline);
  trainer.update.passes = absl::GetFlag(FLAGS_passes);
  trainer.update.loss = LossFromFlags();
  trainer.update.max_grad_norm = IfSet(absl::GetFlag(FLAGS_max_grad_norm));
  trainer.update.learning_rate = IfSet(absl::GetFlag(FLAGS_learning_rate));
  trainer.checkpoint_every = absl::GetFlag(FLAGS_checkpoint_every);
  trainer.evaluation_every = absl::GetFlag(FLAGS_evaluation_every);
  trainer.evaluation_episodes = absl::GetFlag(FLAGS_evaluation_episodes);
  trainer.max_updates = absl::GetFlag(FLAGS_updates);
  if (const double minutes = absl::GetFlag(FLAGS_minutes); minutes > 0) {
    trainer.max_time = absl::Minutes(minutes);
  }
  trainer.workers = absl::GetFlag(FLAGS_workers);
  trainer.server_patience = absl::GetFlag(FLAGS_server_patience);
  return settings;
}

nlohmann::ordered_json ToJson(const TrainerSettings& settings) {
  const Trainer::Options& trainer = settings.trainer;
  const v1::PpoLoss& loss = trainer.update.loss;
  const std::string& options = settings.service.options_json;
  return {
      {"task", settings.service.task},
      {"max_epochs", settings.service.max_epochs},
      {"env_options", options.empty() ? Json::object() : Json::parse(options)},
      {"seed", settings.scheduler.root_seed},
      {"minutes", trainer.max_time == absl::InfiniteDuration()
                      ? Json()
                      : Json(absl::ToDoubleMinutes(trainer.max_time))},
      {"updates", trainer.max_updates},
      {"episodes_per_update", trainer.episodes_per_update},
      {"min_episodes", trainer.min_episodes},
      {"collect_deadline_seconds",
       absl::ToDoubleSeconds(trainer.collect_deadline)},
      {"worker_lease_seconds", absl::ToDoubleSeconds(settings.scheduler.lease)},
      {"workers", trainer.workers},
      {"checkpoint_every", trainer.checkpoint_every},
      {"evaluation_every", trainer.evaluation_every},
      {"evaluation_episodes", trainer.evaluation_episodes},
      {"passes", trainer.update.passes},
      {"learning_rate", OrNull(trainer.update.learning_rate)},
      {"max_grad_norm", OrNull(trainer.update.max_grad_norm)},
      {"clip_ratio", OrNull(loss.has_clip_ratio(), loss.clip_ratio())},
      {"value_coef", OrNull(loss.has_value_coef(), loss.value_coef())},
      {"entropy_coef", OrNull(loss.has_entropy_coef(), loss.entropy_coef())},
      {"gamma", OrNull(loss.has_gamma(), loss.gamma())},
      {"gae_lambda", OrNull(loss.has_gae_lambda(), loss.gae_lambda())},
      {"target_kl", OrNull(loss.has_target_kl(), loss.target_kl())},
      {"contribution_coef",
       OrNull(loss.has_contribution_coef(), loss.contribution_coef())},
  };
}

}  // namespace esper::client
