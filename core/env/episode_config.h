#ifndef ESPER_CORE_ENV_EPISODE_CONFIG_H_
#define ESPER_CORE_ENV_EPISODE_CONFIG_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/env/governor.h"
#include "core/env/loss_reward.h"
#include "core/env/reward_config.h"
#include "core/env/task.h"
#include "core/env/trainer_options.h"

namespace esper::env {

// All that decides how an episode goes, besides the actions.
struct EpisodeConfig {
  // The defaults of a task: its trainer options and loss reward, and a governor
  // that knows the loss of a host that guesses among its classes.
  static EpisodeConfig For(std::shared_ptr<const Task> task);

  std::shared_ptr<const Task> task;  // Required.
  uint64_t seed = 0;                 // Of data order and first weights.
  int max_epochs = 50;               // Steps, >= 1.
  int64_t max_seeds = 0;             // Live seeds at a time; 0 = unlimited.

  // Gate profile of the slots, and gates that the tick passes by itself. All
  // three together take ADVANCE from the policy.
  bool permissive_gates = true;
  bool auto_forward_g1 = false;
  bool auto_forward_g2 = false;
  bool auto_forward_g3 = false;

  // `kContribution` pays by `reward`, `kLoss` by `loss_reward`.
  enum class RewardFamily { kContribution, kLoss };
  RewardFamily reward_family = RewardFamily::kContribution;
  RewardConfig reward;
  LossRewardConfig loss_reward;

  TrainerOptions trainer;
  Governor::Options governor;

  // What a rollback does to the rewards before it. `kKept`: the penalty is
  // added to the last one. `kForfeited`: it replaces the last one, and all
  // earlier ones count as 0 (StepResult::forfeits_earlier_rewards).
  enum class RollbackRewards { kKept, kForfeited };
  RollbackRewards rollback_rewards = RollbackRewards::kKept;

  // When an op is paid. `kOutcome`: after it ran, as WAIT if its handler
  // refused it. `kIntent`: as if it had succeeded.
  enum class RewardTiming { kOutcome, kIntent };
  RewardTiming reward_timing = RewardTiming::kOutcome;

  // Sees each validation loss before the governor does and returns the one to
  // use: fault injection. May be empty.
  std::function<double(int epoch, double val_loss)> val_loss_hook;

  // INVALID_ARGUMENT naming the field.
  absl::Status Validate() const;
};

// Overrides `base` by the members of the JSON object `text`; empty text
// changes nothing. Keys: "max_seeds", "permissive_gates", "auto_forward_g1",
// "auto_forward_g2", "auto_forward_g3", "reward_family" ("contribution",
// "loss"), "reward" (an object, see RewardConfigFromJson), "loss_preset",
// "samples_per_epoch", "val_samples", "gradient_stride", "host_lr", "seed_lr",
// "max_grad_norm", "fossil" ("join_host", "frozen"), "rollback_rewards"
// ("kept", "forfeited"), "reward_timing" ("outcome", "intent").
// INVALID_ARGUMENT on text that is no object, an unknown key (naming the
// nearest known one) or a value out of range.
absl::StatusOr<EpisodeConfig> EpisodeConfigFromJson(const std::string& text,
                                                    const EpisodeConfig& base);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_EPISODE_CONFIG_H_
