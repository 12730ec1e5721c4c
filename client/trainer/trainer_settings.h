#ifndef ESPER_CLIENT_TRAINER_TRAINER_SETTINGS_H_
#define ESPER_CLIENT_TRAINER_TRAINER_SETTINGS_H_

#include <string>

#include "absl/status/statusor.h"
#include "client/trainer/coordinator_service.h"
#include "client/trainer/episode_scheduler.h"
#include "client/trainer/trainer.h"
#include "esper/v1/training_config.pb.h"

namespace esper::client {

// What decides how a run trains; addresses and folders are not part of it.
struct TrainerSettings {
  EpisodeScheduler::Options scheduler;
  CoordinatorService::Options service;
  Trainer::Options trainer;
};

// The parts of a checked configuration (config::LoadConfig). INVALID_ARGUMENT
// for a task that nobody knows. Thread-safe.
absl::StatusOr<TrainerSettings> ToSettings(const v1::TrainingConfig& config);

// The section `environment` as workers read it: the fields that are set, and
// the profile unless it is the default. Empty if there are none.
std::string EnvironmentOptions(const v1::TrainingConfig& config);

}  // namespace esper::client
#endif  // ESPER_CLIENT_TRAINER_TRAINER_SETTINGS_H_
