#include "server/ppo_messages.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "proto/config/field_rules.h"

namespace esper::server {
namespace {

using DoubleMap = google::protobuf::Map<std::string, double>;

// Overrides entries, and keeps the others.
void Override(const DoubleMap& from, std::map<std::string, double>* to) {
  for (const auto& [name, value] : from) (*to)[name] = value;
}

void ReadSchedules(const v1::PpoLoss& message, ppo::PpoOptions* options) {
  ppo::EntropySchedule& entropy = options->entropy;
  if (message.has_entropy_coef()) {
    entropy.fixed = message.entropy_coef();
    entropy.minimum = std::min(entropy.minimum, entropy.fixed);
  }
  if (message.has_entropy_coef_start()) {
    entropy.start = message.entropy_coef_start();
  }
  if (message.has_entropy_coef_end()) {
    entropy.end = message.entropy_coef_end();
  }
  if (message.has_entropy_anneal_updates()) {
    entropy.anneal_updates = message.entropy_anneal_updates();
  }
  if (message.has_entropy_coef_min()) {
    entropy.minimum = message.entropy_coef_min();
  }
  ppo::ValueSchedule& value = options->value;
  if (message.has_value_coef()) value.target = message.value_coef();
  if (message.has_value_coef_start()) value.start = message.value_coef_start();
  if (message.has_value_warmup_updates()) {
    value.warmup_updates = message.value_warmup_updates();
  }
  ppo::ContributionSchedule& contribution = options->contribution;
  if (message.has_contribution_coef()) {
    contribution.coefficient = message.contribution_coef();
  }
  if (message.has_contribution_warmup_updates()) {
    contribution.warmup_updates = message.contribution_warmup_updates();
  }
  if (message.has_total_updates()) {
    options->total_updates = message.total_updates();
  }
}

void ReadSwitches(const v1::PpoLoss& message, ppo::PpoOptions* options) {
  if (message.has_ends()) {
    options->ends = message.ends() == v1::END_HANDLING_UPSTREAM
                        ? ppo::EndHandling::kUpstream
                        : ppo::EndHandling::kEveryEnd;
  }
  if (message.has_ratio_denominator()) {
    options->denominator =
        message.ratio_denominator() == v1::RATIO_DENOMINATOR_ANCHOR
            ? ppo::RatioDenominator::kAnchor
            : ppo::RatioDenominator::kBehaviour;
  }
  if (message.has_policy_mean()) {
    options->policy_mean = message.policy_mean() == v1::POLICY_MEAN_UPSTREAM
                               ? ppo::PolicyMean::kUpstream
                               : ppo::PolicyMean::kSteps;
  }
  if (message.has_entropy_over()) {
    options->entropy_over = message.entropy_over() == v1::ENTROPY_OVER_UPSTREAM
                                ? ppo::EntropyOver::kUpstream
                                : ppo::EntropyOver::kAvailable;
  }
  if (message.has_statistics_over()) {
    options->statistics_over =
        message.statistics_over() == v1::STATISTICS_OVER_UPSTREAM
            ? ppo::StatisticsOver::kUpstream
            : ppo::StatisticsOver::kUnforced;
  }
}

policy::FloorMode ToFloorMode(v1::FloorMode mode) {
  switch (mode) {
    case v1::FLOOR_MODE_UPSTREAM:
      return policy::FloorMode::kUpstream;
    case v1::FLOOR_MODE_EXACT:
      return policy::FloorMode::kExact;
    case v1::FLOOR_MODE_NONE:
      return policy::FloorMode::kNone;
    default:
      return policy::FloorMode::kMixture;
  }
}

}  // namespace

absl::StatusOr<ppo::PpoOptions> DecodePpoLoss(const v1::PpoLoss& message,
                                              v1::Profile profile) {
  absl::Status valid = config::CheckFields(message, "ppo");
  if (!valid.ok()) return valid;
  ppo::PpoOptions options = profile == v1::PROFILE_UPSTREAM
                                ? ppo::PpoOptions::Upstream()
                                : ppo::PpoOptions();
  if (message.has_gamma()) options.gamma = message.gamma();
  if (message.has_gae_lambda()) options.gae_lambda = message.gae_lambda();
  if (message.has_reward_clip()) options.reward_clip = message.reward_clip();
  if (message.has_clip_ratio()) options.clip_ratio = message.clip_ratio();
  if (message.has_value_clip()) options.value_clip = message.value_clip();
  if (message.has_target_kl()) {
    options.target_kl.reset();
    if (message.target_kl() > 0) options.target_kl = message.target_kl();
  }
  if (message.has_kl_stop_factor()) {
    options.kl_stop_factor = message.kl_stop_factor();
  }
  if (message.has_contribution_clip()) {
    options.contribution_clip = message.contribution_clip();
  }
  if (message.has_ratio_alarm()) options.ratio_alarm = message.ratio_alarm();
  if (message.has_ratio_refuse()) options.ratio_refuse = message.ratio_refuse();
  ReadSchedules(message, &options);
  ReadSwitches(message, &options);
  Override(message.entropy_multipliers(), &options.entropy_multipliers);
  Override(message.entropy_floors(), &options.entropy_floors);
  Override(message.entropy_floor_coefs(), &options.entropy_floor_coefs);
  return options;
}

v1::PpoLoss EncodePpoLoss(const ppo::PpoOptions& options,
                          const ppo::LossOptions& used) {
  v1::PpoLoss message;
  message.set_clip_ratio(used.clip_ratio);
  message.set_value_coef(used.value_coef);
  message.set_entropy_coef(used.entropy_coef);
  message.set_contribution_coef(used.contribution_coef);
  message.set_gamma(options.gamma);
  message.set_gae_lambda(options.gae_lambda);
  message.set_target_kl(options.target_kl.value_or(0));
  message.set_kl_stop_factor(options.kl_stop_factor);
  message.set_reward_clip(options.reward_clip);
  message.set_value_clip(options.value_clip);
  message.set_value_coef_start(options.value.start);
  message.set_value_warmup_updates(options.value.warmup_updates);
  message.set_entropy_coef_start(options.entropy.start);
  message.set_entropy_coef_end(options.entropy.end);
  message.set_entropy_anneal_updates(options.entropy.anneal_updates);
  message.set_entropy_coef_min(options.entropy.minimum);
  message.set_contribution_warmup_updates(options.contribution.warmup_updates);
  message.set_contribution_clip(options.contribution_clip);
  message.set_total_updates(options.total_updates);
  message.mutable_entropy_multipliers()->insert(
      options.entropy_multipliers.begin(), options.entropy_multipliers.end());
  message.mutable_entropy_floors()->insert(options.entropy_floors.begin(),
                                           options.entropy_floors.end());
  message.mutable_entropy_floor_coefs()->insert(
      options.entropy_floor_coefs.begin(), options.entropy_floor_coefs.end());
  message.set_ends(options.ends == ppo::EndHandling::kUpstream
                       ? v1::END_HANDLING_UPSTREAM
                       : v1::END_HANDLING_EVERY_END);
  message.set_ratio_denominator(options.denominator ==
                                        ppo::RatioDenominator::kAnchor
                                    ? v1::RATIO_DENOMINATOR_ANCHOR
                                    : v1::RATIO_DENOMINATOR_BEHAVIOUR);
  message.set_policy_mean(options.policy_mean == ppo::PolicyMean::kUpstream
                              ? v1::POLICY_MEAN_UPSTREAM
                              : v1::POLICY_MEAN_STEPS);
  message.set_entropy_over(options.entropy_over == ppo::EntropyOver::kUpstream
                               ? v1::ENTROPY_OVER_UPSTREAM
                               : v1::ENTROPY_OVER_AVAILABLE);
  message.set_statistics_over(options.statistics_over ==
                                      ppo::StatisticsOver::kUpstream
                                  ? v1::STATISTICS_OVER_UPSTREAM
                                  : v1::STATISTICS_OVER_UNFORCED);
  message.set_ratio_alarm(options.ratio_alarm);
  message.set_ratio_refuse(options.ratio_refuse);
  return message;
}

absl::StatusOr<ppo::LearnerConfig> DecodeLearnerConfig(
    const v1::LearnerConfig& message, v1::Profile profile) {
  absl::Status valid = config::CheckFields(message, "learner");
  if (!valid.ok()) return valid;
  ppo::LearnerConfig config = profile == v1::PROFILE_UPSTREAM
                                  ? ppo::LearnerConfig::Upstream()
                                  : ppo::LearnerConfig();
  if (message.has_learning_rate()) {
    config.learning_rate = message.learning_rate();
  }
  if (message.has_beta1()) config.beta1 = message.beta1();
  if (message.has_beta2()) config.beta2 = message.beta2();
  if (message.has_adam_epsilon()) config.adam_epsilon = message.adam_epsilon();
  if (message.has_critic_weight_decay()) {
    config.critic_weight_decay = message.critic_weight_decay();
  }
  if (message.has_normalize_observations()) {
    config.normalize_observations = message.normalize_observations();
  }
  if (message.has_observation_averaging()) {
    config.observation_averaging =
        message.observation_averaging() == v1::OBSERVATION_AVERAGING_UPSTREAM
            ? ppo::ObservationAveraging::kUpstream
            : ppo::ObservationAveraging::kExactRows;
  }
  if (message.has_reward_scaling()) {
    config.reward_scaling =
        message.reward_scaling() == v1::REWARD_SCALING_UPSTREAM
            ? ppo::RewardScaling::kUpstream
            : ppo::RewardScaling::kReturns;
  }
  if (message.has_floor_anneal_updates()) {
    config.floor_anneal_updates = message.floor_anneal_updates();
  }
  if (message.has_final_floor_scale()) {
    config.final_floor_scale = message.final_floor_scale();
  }
  if (message.has_rollback_failed_updates()) {
    config.rollback_failed_updates = message.rollback_failed_updates();
  }
  if (message.has_scale_rewards()) {
    config.scale_rewards = message.scale_rewards();
  }
  if (message.has_normalize_values()) {
    config.normalize_values = message.normalize_values();
  }
  if (message.has_popart()) config.popart = message.popart();
  if (message.has_exact_rows()) config.exact_rows = message.exact_rows();
  if (message.has_value_exact_rows()) {
    config.value_averaging.exact_rows = message.value_exact_rows();
  }
  if (message.has_value_momentum()) {
    config.value_averaging.momentum = message.value_momentum();
  }
  if (message.has_predictor_dropout()) {
    config.predictor_dropout = message.predictor_dropout();
  }
  if (message.has_dropout_seed()) config.dropout_seed = message.dropout_seed();
  if (message.has_max_version_lag()) {
    config.max_version_lag = message.max_version_lag();
  }
  if (message.has_max_episode_length()) {
    config.max_episode_length = message.max_episode_length();
  }
  if (message.has_max_nonfinite_in_a_row()) {
    config.max_nonfinite_in_a_row = message.max_nonfinite_in_a_row();
  }
  return config;
}

v1::LearnerConfig EncodeLearnerConfig(const ppo::LearnerConfig& config) {
  v1::LearnerConfig message;
  message.set_learning_rate(config.learning_rate);
  message.set_beta1(config.beta1);
  message.set_beta2(config.beta2);
  message.set_adam_epsilon(config.adam_epsilon);
  message.set_critic_weight_decay(config.critic_weight_decay);
  message.set_normalize_observations(config.normalize_observations);
  message.set_observation_averaging(config.observation_averaging ==
                                            ppo::ObservationAveraging::kUpstream
                                        ? v1::OBSERVATION_AVERAGING_UPSTREAM
                                        : v1::OBSERVATION_AVERAGING_EXACT_ROWS);
  message.set_scale_rewards(config.scale_rewards);
  message.set_reward_scaling(config.reward_scaling ==
                                     ppo::RewardScaling::kUpstream
                                 ? v1::REWARD_SCALING_UPSTREAM
                                 : v1::REWARD_SCALING_RETURNS);
  message.set_normalize_values(config.normalize_values);
  message.set_popart(config.popart);
  message.set_exact_rows(config.exact_rows);
  message.set_value_exact_rows(config.value_averaging.exact_rows);
  message.set_value_momentum(config.value_averaging.momentum);
  message.set_predictor_dropout(config.predictor_dropout);
  message.set_dropout_seed(config.dropout_seed);
  message.set_floor_anneal_updates(config.floor_anneal_updates);
  message.set_final_floor_scale(config.final_floor_scale);
  message.set_rollback_failed_updates(config.rollback_failed_updates);
  message.set_max_version_lag(config.max_version_lag);
  message.set_max_episode_length(config.max_episode_length);
  message.set_max_nonfinite_in_a_row(config.max_nonfinite_in_a_row);
  return message;
}

absl::StatusOr<policy::PolicySpec> DecodePolicyConfig(
    const v1::PolicyConfig& message, v1::Profile profile) {
  absl::Status valid = config::CheckFields(message, "policy");
  if (!valid.ok()) return valid;
  policy::NetworkGrowingOptions options;
  if (message.slots_size() > 0) {
    options.slot_ids.assign(message.slots().begin(), message.slots().end());
  }
  if (message.has_feature_dim()) options.feature_dim = message.feature_dim();
  if (message.has_hidden_dim()) options.hidden_dim = message.hidden_dim();
  if (message.has_lstm_layers()) options.lstm_layers = message.lstm_layers();
  if (message.has_floor()) {
    options.floor_mode = ToFloorMode(message.floor());
  } else if (profile == v1::PROFILE_UPSTREAM) {
    options.floor_mode = policy::FloorMode::kUpstream;
  }
  policy::PolicySpec spec = policy::PolicySpec::NetworkGrowing(options);
  absl::Status status = spec.Validate();
  if (!status.ok()) return status;
  return spec;
}

}  // namespace esper::server
