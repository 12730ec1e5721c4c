#ifndef ESPER_CORE_PPO_LEARNER_OPTIONS_H_
#define ESPER_CORE_PPO_LEARNER_OPTIONS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>

#include "core/policy/training_precision.h"
#include "core/ppo/gae.h"
#include "core/ppo/losses.h"
#include "core/ppo/moments.h"
#include "core/ppo/schedule.h"

namespace esper::ppo {

// How observation statistics come about.
enum class ObservationAveraging : uint8_t {
  kExactRows,  // Exact over `exact_rows` rows, then over the last ones.
  // As the reference implementation: an initial guess of mean 0 and variance 1
  // that every batch moves by 1 %.
  kUpstream,
};

// What raw rewards are divided by, if they are scaled at all.
enum class RewardScaling : uint8_t {
  kReturns,  // Deviation of discounted returns, frozen between publishes.
  // As the reference implementation: a running deviation of single rewards,
  // moved by every step, rows side by side. Needs whole batches: parts and
  // minibatches are refused.
  kUpstream,
};

// Limits of the ratio check where acting or training runs in bfloat16.
inline constexpr double kBf16RatioAlarm = 5e-2;
inline constexpr double kBf16RatioRefuse = 5e-1;

// What a learner is built with, fixed for its life. The defaults are the
// product's; `Upstream()` is the reference implementation's behaviour.
struct LearnerConfig {
  double learning_rate = 3e-4;  // > 0; Adam's, until OptimStep sets another.
  double beta1 = 0.9;           // [0, 1).
  double beta2 = 0.999;         // [0, 1).
  double adam_epsilon = 1e-5;   // > 0.
  // Decoupled decay of the V and Q heads, >= 0; nothing else decays.
  double critic_weight_decay = 0.0;

  bool normalize_observations = true;
  ObservationAveraging observation_averaging = ObservationAveraging::kExactRows;
  bool scale_rewards = true;
  RewardScaling reward_scaling = RewardScaling::kReturns;
  bool normalize_values = true;
  bool popart = true;  // Rescale V and Q when the value scale moves.
  // Statistics are exact up to this many rows, then follow the last ones.
  double exact_rows = 100'000;
  Averaging value_averaging = Averaging::ExactThenCapped(20'000);

  // Dropout of the contribution predictor while training.
  bool predictor_dropout = true;
  uint64_t dropout_seed = 0;

  // Probability floors are multiplied by a scale that falls linearly from 1 to
  // `final_floor_scale` over so many updates; 0: they stay as the specification
  // has them. Every published version carries its scale. >= 0; [0, 1].
  int64_t floor_anneal_updates = 0;
  double final_floor_scale = 0.0;

  // A pass or step that is not finite takes back the whole update it belongs
  // to: weights, optimiser and statistics are again those of the last publish.
  // False, as the reference implementation: it is skipped, what came before it
  // in the update stays.
  bool rollback_failed_updates = true;

  // Of the network's products in evaluation and training. A property of the
  // process, not of what it trains: checkpoints do not hold it. With kBf16 the
  // limits of the ratio check are at least kBf16RatioAlarm, kBf16RatioRefuse.
  policy::TrainingPrecision precision = policy::TrainingPrecision::kFp32;

  // >= 0; older steps are refused, except by a loss with a lag of its own.
  int64_t max_version_lag = 1;
  int64_t max_episode_length = 4096;   // >= 1.
  int64_t max_nonfinite_in_a_row = 3;  // >= 1.

  static LearnerConfig Upstream();
  // Factor on the floors after so many finished updates, in [0, 1].
  double FloorScaleAt(int64_t updates) const;
  // Throws InvalidArgumentError (MALFORMED_REQUEST), naming the field.
  void Check() const;
};

// Whose log-probs the importance ratio divides by.
enum class RatioDenominator : uint8_t {
  kBehaviour,  // Recorded when the action was taken.
  kAnchor,     // The published weights', evaluated again.
};

// Which part of a batch a pass is made over, and what it does besides its loss.
struct PassScope {
  // This batch feeds the observation, return and value statistics: once per
  // update, on its first pass. May be combined with `totals_only`.
  bool update_statistics = false;
  // Computes report and totals without gradient.
  bool totals_only = false;
  // Totals of the whole batch that this call is a part of. The KL stop is then
  // left to the call that computed them.
  std::optional<BatchTotals> totals;
  // This call is a minibatch with an optimiser step of its own: of `totals` (if
  // given) only the advantage statistics are read, means are over the
  // minibatch, and the KL stop is on.
  bool minibatch = false;

  // One of several calls whose gradients add up to one step.
  bool part() const { return totals.has_value() && !minibatch; }
};

// How returns are estimated out of what was recorded.
struct ReturnOptions {
  double gamma = 0.995;      // (0, 1].
  double gae_lambda = 0.98;  // [0, 1].
  EndHandling ends = EndHandling::kEveryEnd;
  // Bound on a reward once a scale is known, in scaled units; 0: none.
  double reward_clip = 10.0;
  StatisticsOver statistics_over = StatisticsOver::kUnforced;
};

// Limits of the ratio check: |log-prob now - recorded| on steps of the
// published version, before any optimiser step. Raise both fiftyfold if acting
// runs in bfloat16.
struct RatioLimits {
  double ratio_alarm = 1e-3;   // > 0.
  double ratio_refuse = 1e-2;  // > 0.
};

// Settings of one forward-backward pass with the clipped surrogate.
struct PpoOptions : PassScope, ReturnOptions, RatioLimits {
  double clip_ratio = 0.2;                  // > 0.
  double value_clip = 0.0;                  // 0: no value clipping.
  std::optional<double> target_kl = 0.015;  // > 0; absent: never stop.
  double kl_stop_factor = 1.5;              // Stop above factor x target.

  EntropySchedule entropy;
  ValueSchedule value;
  ContributionSchedule contribution;
  double contribution_clip = 10.0;
  // Updates that the whole training is planned for; the entropy-floor penalty
  // weakens towards its end. 0: unknown, the penalty keeps factor 1.
  int64_t total_updates = 0;

  // By head name. Heads not named get the specification's entropy multiplier
  // and no floor; the default floors are those of the network-growing policy.
  std::map<std::string, double> entropy_multipliers;
  std::map<std::string, double> entropy_floors = DefaultFloors();
  std::map<std::string, double> entropy_floor_coefs = DefaultFloorCoefs();

  RatioDenominator denominator = RatioDenominator::kBehaviour;
  PolicyMean policy_mean = PolicyMean::kSteps;
  EntropyOver entropy_over = EntropyOver::kAvailable;

  static PpoOptions Upstream();
  // Throws InvalidArgumentError (MALFORMED_REQUEST), naming the field.
  void Check() const;
  static std::map<std::string, double> DefaultFloors();
  static std::map<std::string, double> DefaultFloorCoefs();
};

// Settings of one pass with V-trace (core/ppo/importance_sampling.h).
struct ImportanceSamplingOptions : PassScope, RatioLimits {
  // A learner knows the units of so many versions, the newest.
  static constexpr int64_t kLargestVersionLag = 127;

  double gamma = 0.995;             // (0, 1].
  double rho_bar = 1.0;             // > 0.
  double c_bar = 1.0;               // (0, rho_bar].
  double trace_lambda = 1.0;        // [0, 1].
  double reward_clip = 10.0;        // As in ReturnOptions.
  double value_coef = 0.5;          // >= 0; Q gets half of it.
  double entropy_coef = 0.01;       // >= 0.
  double contribution_coef = 0.0;   // >= 0.
  double contribution_clip = 10.0;  // >= 0; 0: none.
  // Versions that steps may be behind, in place of the learner's limit: their
  // weights correct for it. [0, kLargestVersionLag].
  int64_t max_version_lag = 31;

  // Throws InvalidArgumentError (MALFORMED_REQUEST), naming the field.
  void Check() const;
};

// Settings of one pass of imitation (core/ppo/behaviour_cloning.h).
struct BehaviourCloningOptions : PassScope {
  double entropy_coef = 0.0;  // >= 0.

  // Throws InvalidArgumentError (MALFORMED_REQUEST), naming the field.
  void Check() const;
};

// The loss of a pass, by the settings that are given.
using PassOptions = std::variant<PpoOptions, ImportanceSamplingOptions,
                                 BehaviourCloningOptions>;

PassScope& ScopeOf(PassOptions& options);
const PassScope& ScopeOf(const PassOptions& options);

struct OptimStepOptions {
  double max_grad_norm = 5.0;           // Global L2 norm, > 0.
  std::optional<double> learning_rate;  // From now on, > 0.

  // Throws InvalidArgumentError (MALFORMED_REQUEST), naming the field.
  void Check() const;
};

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_LEARNER_OPTIONS_H_
