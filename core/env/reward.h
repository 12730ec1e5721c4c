#ifndef ESPER_CORE_ENV_REWARD_H_
#define ESPER_CORE_ENV_REWARD_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/env/reward_config.h"
#include "core/policy/actions.h"

// The reward of one environment step: a pure function of what was measured and
// done. Doubles throughout; accuracies in percentage points. All functions are
// safe from any thread.
namespace esper::env {

// A live seed as it was before the action.
struct SeedInfo {
  int64_t stage = policy::kStageGerminated;
  int64_t epochs_in_stage = 0;
  int64_t previous_stage = policy::kStageUnknown;
  int64_t previous_epochs_in_stage = 0;
  int64_t age_epochs = 0;
  double improvement_since_stage_start = 0;
  double total_improvement = 0;
  double interaction_sum = 0;
};

// The part of a BASIC_PLUS fossilise bonus that is paid epoch by epoch.
struct DripState {
  std::string seed_id;
  std::string slot_id;
  int64_t fossilize_epoch = 0;
  int64_t max_epochs = 0;
  double total = 0;
  double scale = 0;  // Reward per accuracy point of contribution.
  double paid = 0;
};

// One slot, before the action.
struct SlotRewardInputs {
  std::string slot_id;
  std::string seed_id;
  std::optional<SeedInfo> seed;        // Absent without a live seed.
  std::optional<double> contribution;  // Absent if not measured this step.
  // Validation accuracy when the seed germinated; absent after fossilisation.
  std::optional<double> acc_at_germination;
  double escrow_credit = 0;  // Paid so far by ESCROW.
};

struct RewardInputs {
  // The op that took effect: WAIT if the sampled one was refused.
  policy::Op op = policy::Op::kWait;
  // Every slot of the configuration; under `kTargetSlot` attribution the target
  // alone is read.
  std::vector<SlotRewardInputs> slots;
  // Index into `slots` of the sampled slot.
  int64_t target = 0;

  int64_t epoch = 0;       // From 1.
  int64_t max_epochs = 0;  // Episode length.
  double val_acc = 0;
  double val_loss = 0;                      // LOSS only.
  double acc_delta = 0;                     // This step's change.
  std::optional<double> loss_delta;         // New - old; absent on step 1.
  std::optional<double> acc_since_start;    // Against the first validation.
  std::optional<double> stable_val_acc;     // ESCROW only.
  std::optional<double> committed_val_acc;  // Fossilised seeds only.
  // Accuracy with all seeds minus accuracy without any; absent if unmeasured.
  std::optional<double> counterfactual_improvement;

  int64_t host_params = 0;
  int64_t total_params = 0;
  std::optional<double> effective_seed_params;
  double alpha_delta_sq_sum = 0;

  int64_t n_active = 0;      // Occupied, neither fossilised nor pruned.
  int64_t n_fossilized = 0;  // This episode.
  int64_t n_contributing = 0;
  int64_t fossilized_params = 0;  // Seeds and their gates.

  // BASIC_PLUS: what is open, and each seed id's contribution now.
  std::vector<DripState> drips;
  std::map<std::string, double> drip_contributions;
};

// The parts of a reward. `total()` is their sum, always; a part that a family
// does not have is 0. Signs are those with which a part enters the sum.
struct RewardBreakdown {
  double attribution = 0;
  double blending_warning = 0;
  double holding_warning = 0;
  double pbrs = 0;
  double synergy = 0;
  double rent = 0;
  double alpha_shock = 0;
  double occupancy_rent = 0;
  double fossilized_rent = 0;
  double op_shaping = 0;  // Costs, and bonuses of the op itself.
  double fossilize = 0;   // BASIC families.
  double drip = 0;        // BASIC_PLUS.
  double terminal = 0;
  double loss = 0;  // LOSS: the paid change of the loss.
  // Added after the family (AddFinalTerms).
  double escrow_forfeit = 0;
  double pbrs_clawback = 0;
  double auto_prune = 0;
  double hindsight = 0;
  double governor = 0;

  // What explains the parts; not in the sum.
  double attribution_discount = 1;  // Of the target slot.
  double ratio_penalty = 0;         // Of the target slot.
  double timing_discount = 1;       // Of the target slot.
  double growth_ratio = 0;          // Overhead per host parameter.

  // ESCROW: per slot id, the credit after this step, and by how much it moved
  // and towards which target. Slots that were not read are not in it.
  struct Escrow {
    double target = 0;
    double delta = 0;
    double next = 0;
  };
  std::map<std::string, Escrow> escrow;

  // BASIC_PLUS: what to keep if the fossilisation succeeds, and the open drips
  // after this step's payment.
  std::optional<DripState> new_drip;
  std::vector<DripState> drips;

  double total() const;
  // Name and value of every part, in declaration order.
  std::vector<std::pair<const char*, double>> Parts() const;
};

// The family's reward. INVALID_ARGUMENT if an input that the family needs is
// absent, a number is not finite (NONFINITE_INPUT), the target is out of range,
// or `config` is invalid.
absl::StatusOr<RewardBreakdown> ComputeReward(const RewardConfig& config,
                                              const RewardInputs& inputs);

// Whether a seed that is being fossilised counts as contributing, by the
// config's `contributing`: at least one accuracy point. An unmeasured
// contribution counts as none.
bool CountsAsContributing(const RewardConfig& config, double total_improvement,
                          const std::optional<double>& contribution);

// Penalties and credits that wait for the next step of their environment.
struct PendingReward {
  double penalty = 0;  // <= 0: automatic prunes.
  double credit = 0;   // >= 0: hindsight.
};

// What the end of the episode needs to know of a slot, before the action.
struct FinalSlot {
  std::string slot_id;
  int64_t stage = policy::kStageUnknown;
  int64_t age_epochs = 0;
  double escrow_credit = 0;  // After this step.
};

// Adds, after the family's reward: on the last epoch the escrow forfeit and the
// clawback of unresolved germination potentials; then `pending`, which is
// cleared. `occupied`: every slot that has a state.
void AddFinalTerms(const RewardConfig& config, bool last_epoch,
                   const std::vector<FinalSlot>& occupied,
                   PendingReward* pending, RewardBreakdown* reward);

// Adds what became pending during the last step itself, if `config` pays it
// (`flush_pending_at_end`). Clears `pending` either way.
void FlushPending(const RewardConfig& config, PendingReward* pending,
                  RewardBreakdown* reward);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_REWARD_H_
