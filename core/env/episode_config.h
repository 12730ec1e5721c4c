#ifndef ESPER_CORE_ENV_EPISODE_CONFIG_H_
#define ESPER_CORE_ENV_EPISODE_CONFIG_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/env/control_schedule.h"
#include "core/env/governor.h"
#include "core/env/loss_reward.h"
#include "core/env/reward_config.h"
#include "core/env/task.h"
#include "core/env/trainer_options.h"
#include "core/policy/observation.h"
#include "core/slot/blueprint.h"

namespace esper::env {

// All that decides how an episode goes, besides the actions.
struct EpisodeConfig {
  // The defaults of a task: its trainer options and loss reward, and a governor
  // that knows the loss of a host that guesses among its classes.
  static EpisodeConfig For(std::shared_ptr<const Task> task);

  // `kDefault`: what this implementation believes in. `kUpstream`: the
  // behaviour of the reference implementation, wherever the two differ.
  enum class Profile { kDefault, kUpstream };
  // Sets every switch on which the profiles differ: `reward` (its mode stays,
  // its coefficients are the profile's), `loss_delta`, `rollback_rewards`,
  // `reward_timing`, `freshness`, `init_profile` and `trainer.fossil`.
  void UseProfile(Profile profile);

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
  // What the loss family is told. `kOldMinusNew` makes it punish improvement,
  // and the first step, which has no old loss, counts as the largest one.
  enum class LossDelta { kNewMinusOld, kOldMinusNew };
  LossDelta loss_delta = LossDelta::kNewMinusOld;

  // Which contributions the observation calls fresh. With `kUpstream` slots
  // that were never measured have a freshness, and no step hands its measured
  // contributions to the learner.
  policy::ObservationTracking::Freshness freshness =
      policy::ObservationTracking::Freshness::kMeasured;
  slot::InitProfile init_profile = slot::InitProfile::kLive;  // Of seeds.

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

  // Takes every choice from the policy; absent: it chooses freely.
  std::optional<ControlSchedule> control;

  // Sees each validation loss before the governor does and returns the one to
  // use: fault injection. May be empty.
  std::function<double(int epoch, double val_loss)> val_loss_hook;

  // INVALID_ARGUMENT naming the field.
  absl::Status Validate() const;
};

// Overrides `base` by the members of the JSON object `text`; empty text
// changes nothing. Comments (//) are allowed. Keys:
//   "profile" ("default", "upstream")
//     EpisodeConfig::UseProfile, before any other key wherever it stands
//   "reward" (an object, see RewardConfigFromJson), "reward_family"
//     ("contribution", "loss"), "loss_preset" (LossRewardConfig::Preset),
//     "loss_delta" ("new_minus_old", "old_minus_new"), "reward_timing"
//     ("outcome", "intent"), "rollback_rewards" ("kept", "forfeited")
//   "max_seeds", "permissive_gates", "auto_forward_g1", "auto_forward_g2",
//     "auto_forward_g3", "init_profile" ("live", "upstream"), "tracking"
//     ("measured", "upstream"), "control" (ControlSchedule::ByName; "none")
//   "samples_per_epoch", "val_samples", "gradient_stride", "host_lr",
//     "seed_lr", "max_grad_norm", "fossil" ("join_host", "frozen",
//     "own_optimizer")
// INVALID_ARGUMENT on text that is no object, an unknown key (naming the
// nearest known one) or a value out of range.
absl::StatusOr<EpisodeConfig> EpisodeConfigFromJson(const std::string& text,
                                                    const EpisodeConfig& base);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_EPISODE_CONFIG_H_
