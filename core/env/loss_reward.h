#ifndef ESPER_CORE_ENV_LOSS_REWARD_H_
#define ESPER_CORE_ENV_LOSS_REWARD_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "core/env/reward.h"

namespace esper::env {

// The LOSS family: pays the change of the validation loss, for tasks without
// an accuracy.
struct LossRewardConfig {
  double loss_delta_weight = 5.0;
  double max_loss_delta = 5.0;  // In typical deltas.
  double regression_penalty_scale = 0.5;
  double typical_loss_delta_std = 0.1;  // Nats.
  double compute_rent_weight = 0.05;
  double max_rent_penalty = 5.0;
  int64_t grace_epochs = 3;  // No rent while the target seed is younger.
  double stage_potential_weight = 0.1;
  double baseline_loss = 2.3;  // Nats: an untrained host.
  double target_loss = 0.3;    // Nats: pays the full terminal reward.
  double terminal_loss_weight = 1.0;

  // "default", "cifar10" or "tinystories"; INVALID_ARGUMENT otherwise.
  static absl::StatusOr<LossRewardConfig> Preset(const std::string& name);
};

// A fall of the loss pays, a rise costs half. Reads op-independent inputs only:
// `loss_delta` (new - old; absent counts as 0), `val_loss`, parameters, epochs
// and the target slot's seed. Parts: loss, rent, pbrs, terminal.
// INVALID_ARGUMENT (NONFINITE_INPUT) if a loss is not finite.
absl::StatusOr<RewardBreakdown> ComputeLossReward(
    const LossRewardConfig& config, const RewardInputs& inputs);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_LOSS_REWARD_H_
