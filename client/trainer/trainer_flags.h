#ifndef ESPER_CLIENT_TRAINER_TRAINER_FLAGS_H_
#define ESPER_CLIENT_TRAINER_TRAINER_FLAGS_H_

#include "absl/status/statusor.h"
#include "client/trainer/coordinator_service.h"
#include "client/trainer/episode_scheduler.h"
#include "client/trainer/trainer.h"
#include "nlohmann/json.hpp"

namespace esper::client {

// What decides how a run trains; addresses and folders are not part of it.
struct TrainerSettings {
  EpisodeScheduler::Options scheduler;
  CoordinatorService::Options service;
  Trainer::Options trainer;
};

// From the command line. INVALID_ARGUMENT naming the flag that is out of range.
absl::StatusOr<TrainerSettings> SettingsFromFlags();

// The effective configuration, as it is written to the run's folder.
// Coefficients that are left to the server are null.
nlohmann::ordered_json ToJson(const TrainerSettings& settings);

}  // namespace esper::client
#endif  // ESPER_CLIENT_TRAINER_TRAINER_FLAGS_H_
