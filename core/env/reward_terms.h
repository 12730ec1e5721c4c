#ifndef ESPER_CORE_ENV_REWARD_TERMS_H_
#define ESPER_CORE_ENV_REWARD_TERMS_H_

#include <cstdint>
#include <vector>

#include "core/env/reward.h"

// Formula pieces that several reward families share. Pure functions.
namespace esper::env {

// Phi of a stage: how far a seed has come.
double StagePotential(int64_t stage);

// Potential of `epochs` epochs inside a stage, capped.
double StageProgress(const RewardConfig& config, int64_t epochs);

// Phi plus progress; 0 before germination (UNKNOWN, DORMANT).
double SeedPotential(const RewardConfig& config, int64_t stage, int64_t epochs);

// Potential-based shaping of this step: gamma times the potential now, minus
// the potential one step ago, times the weight.
double PotentialShaping(const RewardConfig& config, const SeedInfo& seed);

// Discount of what began at `epoch`: rises linearly from `floor` at 0 to 1 at
// `warmup`; below 0 it keeps falling. 1 if `warmup` <= 0.
double TimingDiscount(int64_t epoch, int64_t warmup, double floor);

// What of `contribution` the accuracy gained since germination backs up.
double AttributedContribution(RewardConfig::Formula formula, double progress,
                              double contribution);

// Bonus for a seed that lifts others.
double SynergyBonus(double interaction_sum);

// Full after five epochs in the stage, in [0, 1].
double HoldingLegitimacy(int64_t epochs_in_stage);

// Cost of an op by itself, <= 0.
double OpCost(const RewardConfig& config, policy::Op op);

// Parameters above the host that rent is due for; at least 0.
double ParameterOverhead(const RewardInputs& inputs);

// The seeds a step is paid for: indices into `inputs.slots`. Under
// `kTargetSlot` the target, seed or not; otherwise every slot with a live seed.
std::vector<int64_t> PaidSlots(const RewardConfig& config,
                               const RewardInputs& inputs);

// The op as slot `index` sees it: WAIT unless it is the target.
policy::Op OpOnSlot(const RewardInputs& inputs, int64_t index);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_REWARD_TERMS_H_
