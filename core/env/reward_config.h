#ifndef ESPER_CORE_ENV_REWARD_CONFIG_H_
#define ESPER_CORE_ENV_REWARD_CONFIG_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"

// Coefficients of the reward families. Accuracies are percentage points; every
// coefficient is in reward units unless it says otherwise.
namespace esper::env {

// Discount of the learner, of the potentials and of hindsight credit.
inline constexpr double kRewardGamma = 0.995;

// Which formula pays a step. `kLoss` has its own coefficients (LossReward).
enum class RewardMode {
  kShaped,
  kEscrow,
  kBasic,
  kBasicPlus,
  kSparse,
  kMinimal,
  kSimplified,
};
// "shaped", "escrow", "basic", "basic_plus", "sparse", "minimal", "simplified".
const char* RewardModeName(RewardMode mode);
absl::StatusOr<RewardMode> RewardModeFromName(const std::string& name);

struct RewardConfig {
  RewardMode mode = RewardMode::kShaped;

  // Whose contribution a step is paid for. `kAllSlots`: every live seed's, so
  // the reward does not depend on which slot the policy names. `kTargetSlot`:
  // only the seed in the sampled slot, where WAIT always names the first
  // allowed one.
  enum class Attribution { kAllSlots, kTargetSlot };
  Attribution attribution = Attribution::kAllSlots;
  // Most that a PRUNE pays for the harm that it ends, before the hurting bonus.
  double prune_attribution_cap = 0.3;
  // Credits and penalties still pending after the last step join its reward.
  bool flush_pending_at_end = true;
  // What BASIC pays at the end: accuracy since the episode began, or the last
  // step's change.
  enum class BasicGain { kSinceStart, kLastStep };
  BasicGain basic_gain = BasicGain::kSinceStart;
  // What counts a fossilised seed as contributing: its measured contribution,
  // or host accuracy since germination (host drift included).
  enum class Contributing { kCounterfactual, kSinceGermination };
  Contributing contributing = Contributing::kCounterfactual;

  // Attribution.
  double contribution_weight = 1.0;
  double proxy_confidence_factor = 0.3;  // Of the weight, when unmeasured.
  enum class Formula { kHarmonic, kMinimum };
  Formula attribution_formula = Formula::kHarmonic;
  double attribution_sigmoid_steepness = 3.0;  // Per accuracy point.
  double improvement_safe_threshold = 0.1;     // Accuracy points.
  double hacking_ratio_threshold = 5.0;        // Contribution : improvement.

  // Escrow.
  int64_t escrow_stable_window = 3;  // Epochs.
  double escrow_delta_clip = 2.0;    // 0 = off.

  // Timing.
  int64_t germination_warmup_epochs = 10;
  double germination_discount_floor = 0.4;

  // Potentials.
  double pbrs_weight = 0.3;
  double epoch_progress_bonus = 0.3;  // Potential per epoch in stage.
  double max_progress_bonus = 2.0;
  double gamma = kRewardGamma;  // Anything else is refused.

  // Rent, shock, capacity.
  double rent_weight = 0.5;
  double max_rent = 1.5;
  int64_t rent_host_params_floor = 200;
  double base_slot_rent_ratio = 0.0039;
  double alpha_shock_coef = 0.1958;
  double alpha_shock_cap = 1.0;
  double seed_occupancy_cost = 0.01;  // Per occupied slot above `free_slots`.
  int64_t free_slots = 1;
  double fossilized_maintenance_cost = 0.002;

  // Op costs.
  double germinate_cost = -0.15;
  double fossilize_cost = -0.01;
  double prune_cost = -0.005;
  double set_alpha_target_cost = -0.005;
  double advance_from_training_penalty = -0.1;
  double germinate_with_seed_penalty = -0.3;

  // Fossilise.
  double fossilize_base_bonus = 0.5;
  double fossilize_contribution_scale = 0.1;
  double invalid_fossilize_penalty = -1.0;
  double fossilize_noncontributing_penalty = -0.2;
  double fossilize_terminal_scale = 3.0;
  double fossilize_quality_ceiling = 3.0;  // Accuracy points.

  // Prune.
  double prune_hurting_bonus = 0.15;
  double prune_acceptable_bonus = 0.1;
  double prune_hurting_threshold = -0.5;  // Accuracy points.
  int64_t min_prune_bonus_age = 3;        // Epochs.
  double prune_good_seed_penalty = -0.3;
  double prune_fossilized_penalty = -1.0;
  double early_prune_penalty = -0.1;
  int64_t early_prune_threshold = 5;  // Epochs.
  double auto_prune_penalty = -0.2;

  // Terminal, sparse.
  double terminal_acc_weight = 0.05;  // Per accuracy point.
  double sparse_reward_scale = 1.0;

  // Basic.
  double basic_acc_delta_weight = 5.0;
  double basic_fossilize_base_bonus = 0.3;
  double basic_contribution_scale = 0.5;
  double basic_fossilize_invalid_penalty = -0.5;
  double basic_fossilize_noncontributing_penalty = -0.2;
  int64_t param_budget = 500000;
  double param_penalty_weight = 0.1;

  // Drip: the share of a fossilise bonus that is paid later, by contribution.
  double drip_fraction = 0.0;  // BASIC_PLUS uses 0.7 unless one is given.
  double max_drip_per_epoch = 0.1;
  int64_t min_drip_epochs = 5;
  double negative_drip_ratio = 0.5;

  // Ablations.
  bool disable_pbrs = false;
  bool disable_terminal_reward = false;
  bool disable_anti_gaming = false;
  bool disable_timing_discount = false;

  // What this implementation believes in; the same as RewardConfig() but for
  // what `mode` implies.
  static RewardConfig Default(RewardMode mode = RewardMode::kShaped);
  // Every switch on the reference implementation's side.
  static RewardConfig Upstream(RewardMode mode = RewardMode::kShaped);

  // INVALID_ARGUMENT naming the field if one is outside its range.
  absl::Status Validate() const;
};

// Overrides `base` by the members of the object `json`, whose keys are the
// field names above ("reward_mode" for the mode; enum values in lower case).
// INVALID_ARGUMENT on an unknown key or a value of the wrong type.
absl::StatusOr<RewardConfig> RewardConfigFromJson(const nlohmann::json& json,
                                                  const RewardConfig& base);
// Every field, as `RewardConfigFromJson` reads it.
nlohmann::json RewardConfigToJson(const RewardConfig& config);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_REWARD_CONFIG_H_
