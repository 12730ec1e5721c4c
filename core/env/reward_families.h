#ifndef ESPER_CORE_ENV_REWARD_FAMILIES_H_
#define ESPER_CORE_ENV_REWARD_FAMILIES_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/env/reward.h"

// One function per family, for ComputeReward, which has checked config, target
// and finiteness. Each fails only for an absent input that it needs.
namespace esper::env {

// SHAPED: contribution with anti-gaming, potentials, rent, op shaping.
absl::StatusOr<RewardBreakdown> ShapedReward(const RewardConfig& config,
                                             const RewardInputs& inputs);

// ESCROW: as SHAPED, but contribution is paid as the change of a credit that
// has to last. Needs `stable_val_acc`.
absl::StatusOr<RewardBreakdown> EscrowReward(const RewardConfig& config,
                                             const RewardInputs& inputs);

// SIMPLIFIED: potentials, a flat price for any op, and the end.
absl::StatusOr<RewardBreakdown> SimplifiedReward(const RewardConfig& config,
                                                 const RewardInputs& inputs);

// SPARSE: the end only. MINIMAL: and a price for early prunes. The end needs
// `committed_val_acc`.
absl::StatusOr<RewardBreakdown> SparseReward(const RewardConfig& config,
                                             const RewardInputs& inputs);

// BASIC: potentials, linear rent, fossilise bonus, accuracy gained. BASIC_PLUS
// pays part of that bonus epoch by epoch.
absl::StatusOr<RewardBreakdown> BasicReward(const RewardConfig& config,
                                            const RewardInputs& inputs);

// Rent, shock, capacity, op shaping and terminal: what SHAPED and ESCROW share
// and what does not depend on attribution.
void AddCommonTerms(const RewardConfig& config, const RewardInputs& inputs,
                    RewardBreakdown* reward);

// -1 times what an untenable contribution-to-improvement ratio costs; <= 0.
double RatioPenalty(const RewardConfig& config, double contribution,
                    double counterfactual_improvement);

// Warnings, potentials and synergy of one live seed. `attribution` is the
// slot's, after all signs; `discount` its sigmoid discount.
void AddSeedTerms(const RewardConfig& config, const RewardInputs& inputs,
                  policy::Op op, const SeedInfo& seed, double attribution,
                  double discount, RewardBreakdown* reward);

// INVALID_ARGUMENT: the family needs `field`.
absl::Status MissingInput(const std::string& field);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_REWARD_FAMILIES_H_
