#include "core/env/episode_config.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

namespace esper::env {
namespace {

absl::Status Invalid(const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("episode options: ", what));
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

void EpisodeConfig::UseProfile(Profile profile) {
  const bool upstream = profile == Profile::kUpstream;
  using policy::ObservationTracking;
  reward = upstream ? RewardConfig::Upstream(reward.mode)
                    : RewardConfig::Default(reward.mode);
  loss_delta = upstream ? LossDelta::kOldMinusNew : LossDelta::kNewMinusOld;
  rollback_rewards =
      upstream ? RollbackRewards::kForfeited : RollbackRewards::kKept;
  reward_timing = upstream ? RewardTiming::kIntent : RewardTiming::kOutcome;
  freshness = upstream ? ObservationTracking::Freshness::kUpstream
                       : ObservationTracking::Freshness::kMeasured;
  init_profile =
      upstream ? slot::InitProfile::kUpstream : slot::InitProfile::kLive;
  trainer.fossil = upstream ? TrainerOptions::Fossil::kOwnOptimizer
                            : TrainerOptions::Fossil::kJoinHost;
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

}  // namespace esper::env
