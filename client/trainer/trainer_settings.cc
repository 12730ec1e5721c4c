#include "client/trainer/trainer_settings.h"

#include "absl/time/time.h"
#include "client/task_names.h"
#include "proto/config/json_message.h"
#include "proto/config/training_config.h"

namespace esper::client {
namespace {

using config::Json;

absl::Duration ToDuration(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) +
         absl::Nanoseconds(duration.nanos());
}

// In options, null is what JSON has for "no limit".
void ReplaceInfinity(Json* json) {
  for (Json& value : *json) {
    if (value.is_structured()) ReplaceInfinity(&value);
    if (value == "Infinity") value = nullptr;
  }
}

UpdateOptions ToUpdateOptions(const v1::TrainingConfig& config) {
  UpdateOptions update;
  update.passes = config.update().passes();
  update.minibatches = config.update().minibatches();
  update.seed = config.run().seed();
  update.learning_rate = config.update().learning_rate();
  update.max_grad_norm = config.update().max_grad_norm();
  update.loss = config.ppo();
  update.profile = config.profile();
  if (!update.loss.has_total_updates()) {
    update.loss.set_total_updates(config.run().updates());
  }
  return update;
}

}  // namespace

absl::StatusOr<TrainerSettings> ToSettings(const v1::TrainingConfig& config) {
  const v1::RunConfig& run = config.run();
  absl::Status task = CheckTaskName(run.task());
  if (!task.ok()) return task;
  TrainerSettings settings;
  settings.scheduler.root_seed = run.seed();
  settings.scheduler.lease = ToDuration(run.worker_lease());

  settings.service.task = run.task();
  settings.service.max_epochs = run.max_epochs();
  settings.service.options_json = EnvironmentOptions(config);
  settings.service.lease = settings.scheduler.lease;

  Trainer::Options& trainer = settings.trainer;
  trainer.episodes_per_update = run.episodes_per_update();
  trainer.min_episodes = config::MinEpisodes(run);
  trainer.collect_deadline = ToDuration(run.collect_deadline());
  trainer.update = ToUpdateOptions(config);
  trainer.checkpoint_every = run.checkpoint_every();
  trainer.evaluation_every = run.evaluation_every();
  trainer.evaluation_episodes = run.evaluation_episodes();
  trainer.max_updates = run.updates();
  if (run.minutes() > 0) trainer.max_time = absl::Minutes(run.minutes());
  trainer.workers = run.workers();
  trainer.server_patience = ToDuration(run.server_patience());
  return settings;
}

std::string EnvironmentOptions(const v1::TrainingConfig& config) {
  v1::EnvironmentConfig environment = config.environment();
  if (!environment.has_profile()) environment.set_profile(config.profile());
  if (environment.profile() == v1::PROFILE_DEFAULT) environment.clear_profile();
  Json options = config::ToJson(environment);
  ReplaceInfinity(&options);
  return options.empty() ? "" : options.dump();
}

}  // namespace esper::client
