#include "core/env/loss_reward.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/env/reward_terms.h"
#include "core/error.h"

namespace esper::env {

absl::StatusOr<LossRewardConfig> LossRewardConfig::Preset(
    const std::string& name) {
  LossRewardConfig config;
  if (name == "default") return config;
  if (name == "cifar10") {
    config.typical_loss_delta_std = 0.05;
    return config;
  }
  if (name == "tinystories") {
    config.typical_loss_delta_std = 0.15;
    config.compute_rent_weight = 0.01;
    config.baseline_loss = 10.8;
    config.target_loss = 3.5;
    return config;
  }
  ErrorDetail detail;
  detail.reason = "MALFORMED_REQUEST";
  detail.field = "preset";
  detail.hint = "Use default, cifar10 or tinystories.";
  return MakeStatus(absl::StatusCode::kInvalidArgument, detail,
                    absl::StrCat("Unknown loss reward preset ", name, "."));
}

absl::StatusOr<RewardBreakdown> ComputeLossReward(
    const LossRewardConfig& config, const RewardInputs& inputs) {
  const double change = inputs.loss_delta.value_or(0);
  for (const auto& [name, value] :
       {std::pair<const char*, double>{"loss_delta", change},
        {"val_loss", inputs.val_loss}}) {
    if (!std::isfinite(value)) return ToStatus(NonFiniteError::Input(name));
  }
  std::optional<SeedInfo> seed;
  if (inputs.target >= 0 &&
      inputs.target < static_cast<int64_t>(inputs.slots.size())) {
    seed = inputs.slots[inputs.target].seed;
  }

  RewardBreakdown reward;
  double scaled = std::clamp(change / config.typical_loss_delta_std,
                             -config.max_loss_delta, config.max_loss_delta);
  if (scaled > 0) scaled *= config.regression_penalty_scale;
  reward.loss = -config.loss_delta_weight * scaled;

  const bool grace = seed.has_value() && seed->age_epochs < config.grace_epochs;
  if (inputs.host_params > 0 && inputs.total_params > inputs.host_params &&
      !grace) {
    const double growth =
        static_cast<double>(inputs.total_params - inputs.host_params) /
        static_cast<double>(inputs.host_params);
    reward.growth_ratio = growth;
    reward.rent = -std::min(config.compute_rent_weight * std::log(1.0 + growth),
                            config.max_rent_penalty);
  }
  if (seed.has_value()) {
    reward.pbrs = config.stage_potential_weight *
                  (kRewardGamma * StagePotential(seed->stage) -
                   StagePotential(seed->previous_stage));
  }
  if (inputs.epoch == inputs.max_epochs) {
    double range = config.baseline_loss - config.target_loss;
    if (range == 0) range = 1.0;
    reward.terminal =
        config.terminal_loss_weight *
        std::clamp((config.baseline_loss - inputs.val_loss) / range, 0.0, 1.0);
  }
  return reward;
}

}  // namespace esper::env
