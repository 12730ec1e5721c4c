#include "core/ppo/learner_options.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/error.h"

namespace esper::ppo {
namespace {

void Require(bool good, const std::string& field, double value,
             const std::string& range) {
  if (good) return;
  ErrorDetail detail;
  detail.reason = "MALFORMED_REQUEST";
  detail.field = field;
  detail.hint = absl::StrCat("Send a number in ", range, ".");
  throw InvalidArgumentError(
      detail, absl::StrCat(field, " = ", value, " is not in ", range, "."));
}

// NaN fails every comparison, so that it is refused too.
void RequirePositive(const std::string& field, double value) {
  Require(value > 0 && std::isfinite(value), field, value, "(0, inf)");
}
void RequireNonNegative(const std::string& field, double value) {
  Require(value >= 0 && std::isfinite(value), field, value, "[0, inf)");
}

}  // namespace

void LearnerConfig::Check() const {
  RequirePositive("learning_rate", learning_rate);
  Require(beta1 >= 0 && beta1 < 1, "beta1", beta1, "[0, 1)");
  Require(beta2 >= 0 && beta2 < 1, "beta2", beta2, "[0, 1)");
  RequirePositive("adam_epsilon", adam_epsilon);
  RequireNonNegative("critic_weight_decay", critic_weight_decay);
  Require(exact_rows >= 1, "exact_rows", exact_rows, "[1, inf)");
  Require(floor_anneal_updates >= 0, "floor_anneal_updates",
          static_cast<double>(floor_anneal_updates), "[0, inf)");
  Require(final_floor_scale >= 0 && final_floor_scale <= 1, "final_floor_scale",
          final_floor_scale, "[0, 1]");
  Require(max_version_lag >= 0, "max_version_lag", max_version_lag, "[0, inf)");
  Require(max_episode_length >= 1, "max_episode_length", max_episode_length,
          "[1, inf)");
  Require(max_nonfinite_in_a_row >= 1, "max_nonfinite_in_a_row",
          max_nonfinite_in_a_row, "[1, inf)");
}

void PpoOptions::Check() const {
  Require(gamma > 0 && gamma <= 1, "gamma", gamma, "(0, 1]");
  Require(gae_lambda >= 0 && gae_lambda <= 1, "gae_lambda", gae_lambda,
          "[0, 1]");
  RequireNonNegative("reward_clip", reward_clip);
  RequirePositive("clip_ratio", clip_ratio);
  RequireNonNegative("value_clip", value_clip);
  if (target_kl) RequirePositive("target_kl", *target_kl);
  RequirePositive("kl_stop_factor", kl_stop_factor);
  RequireNonNegative("entropy_coef", entropy.fixed);
  RequireNonNegative("entropy_start", entropy.start);
  RequireNonNegative("entropy_end", entropy.end);
  RequireNonNegative("entropy_minimum", entropy.minimum);
  RequireNonNegative("value_coef", value.target);
  RequireNonNegative("value_start", value.start);
  RequireNonNegative("contribution_coef", contribution.coefficient);
  RequireNonNegative("contribution_clip", contribution_clip);
  RequirePositive("ratio_alarm", ratio_alarm);
  RequirePositive("ratio_refuse", ratio_refuse);
  for (const auto* map :
       {&entropy_multipliers, &entropy_floors, &entropy_floor_coefs}) {
    for (const auto& [head, value] : *map) {
      RequireNonNegative(absl::StrCat("entropy.", head), value);
    }
  }
}

void ImportanceSamplingOptions::Check() const {
  Require(gamma > 0 && gamma <= 1, "gamma", gamma, "(0, 1]");
  RequirePositive("rho_bar", rho_bar);
  Require(c_bar > 0 && c_bar <= rho_bar, "c_bar", c_bar, "(0, rho_bar]");
  Require(trace_lambda >= 0 && trace_lambda <= 1, "trace_lambda", trace_lambda,
          "[0, 1]");
  RequireNonNegative("reward_clip", reward_clip);
  RequireNonNegative("value_coef", value_coef);
  RequireNonNegative("entropy_coef", entropy_coef);
  RequireNonNegative("contribution_coef", contribution_coef);
  RequireNonNegative("contribution_clip", contribution_clip);
  Require(max_version_lag >= 0 && max_version_lag <= kLargestVersionLag,
          "max_version_lag", static_cast<double>(max_version_lag),
          absl::StrCat("[0, ", kLargestVersionLag, "]"));
  RequirePositive("ratio_alarm", ratio_alarm);
  RequirePositive("ratio_refuse", ratio_refuse);
}

void BehaviourCloningOptions::Check() const {
  RequireNonNegative("entropy_coef", entropy_coef);
}

PassScope& ScopeOf(PassOptions& options) {
  return std::visit([](PassScope& scope) -> PassScope& { return scope; },
                    options);
}

const PassScope& ScopeOf(const PassOptions& options) {
  return std::visit(
      [](const PassScope& scope) -> const PassScope& { return scope; },
      options);
}

void OptimStepOptions::Check() const {
  RequirePositive("max_grad_norm", max_grad_norm);
  if (learning_rate) RequirePositive("learning_rate", *learning_rate);
}

LearnerConfig LearnerConfig::Upstream() {
  LearnerConfig config;
  config.observation_averaging = ObservationAveraging::kUpstream;
  config.reward_scaling = RewardScaling::kUpstream;
  config.popart = false;
  config.value_averaging = Averaging::ExactThenMomentum(32, 0.99);
  config.rollback_failed_updates = false;
  return config;
}

double LearnerConfig::FloorScaleAt(int64_t updates) const {
  if (floor_anneal_updates == 0) return 1.0;
  const double done = std::min(
      static_cast<double>(updates) / static_cast<double>(floor_anneal_updates),
      1.0);
  return 1.0 + done * (final_floor_scale - 1.0);
}

PpoOptions PpoOptions::Upstream() {
  PpoOptions options;
  options.ends = EndHandling::kUpstream;
  options.reward_clip = 0;
  options.denominator = RatioDenominator::kAnchor;
  options.policy_mean = PolicyMean::kUpstream;
  options.entropy_over = EntropyOver::kUpstream;
  options.statistics_over = StatisticsOver::kUpstream;
  return options;
}

std::map<std::string, double> PpoOptions::DefaultFloors() {
  return {{"op", 0.30},          {"slot", 0.15},       {"blueprint", 0.20},
          {"style", 0.15},       {"tempo", 0.20},      {"alpha_target", 0.10},
          {"alpha_speed", 0.10}, {"alpha_curve", 0.10}};
}

std::map<std::string, double> PpoOptions::DefaultFloorCoefs() {
  return {{"op", 0.3},          {"slot", 0.1},       {"blueprint", 0.3},
          {"style", 0.1},       {"tempo", 0.3},      {"alpha_target", 0.1},
          {"alpha_speed", 0.1}, {"alpha_curve", 0.1}};
}

}  // namespace esper::ppo
