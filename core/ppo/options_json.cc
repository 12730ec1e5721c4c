#include "core/ppo/options_json.h"

#include "nlohmann/json.hpp"

namespace esper::ppo {
namespace {

using nlohmann::json;

json OrNull(const std::optional<double>& value) {
  return value.has_value() ? json(*value) : json(nullptr);
}

const char* Side(bool upstream, const char* ours) {
  return upstream ? "upstream" : ours;
}

}  // namespace

json ToJson(const LearnerConfig& config) {
  return {{"learning_rate", config.learning_rate},
          {"beta1", config.beta1},
          {"beta2", config.beta2},
          {"adam_epsilon", config.adam_epsilon},
          {"critic_weight_decay", config.critic_weight_decay},
          {"normalize_observations", config.normalize_observations},
          {"observation_averaging",
           Side(config.observation_averaging == ObservationAveraging::kUpstream,
                "exact_rows")},
          {"scale_rewards", config.scale_rewards},
          {"reward_scaling",
           Side(config.reward_scaling == RewardScaling::kUpstream, "returns")},
          {"normalize_values", config.normalize_values},
          {"popart", config.popart},
          {"exact_rows", config.exact_rows},
          {"value_exact_rows", config.value_averaging.exact_rows},
          {"value_momentum", config.value_averaging.momentum},
          {"predictor_dropout", config.predictor_dropout},
          {"dropout_seed", config.dropout_seed},
          {"floor_anneal_updates", config.floor_anneal_updates},
          {"final_floor_scale", config.final_floor_scale},
          {"rollback_failed_updates", config.rollback_failed_updates},
          {"max_version_lag", config.max_version_lag},
          {"max_episode_length", config.max_episode_length},
          {"max_nonfinite_in_a_row", config.max_nonfinite_in_a_row}};
}

json ToJson(const PpoOptions& options) {
  return {
      {"gamma", options.gamma},
      {"gae_lambda", options.gae_lambda},
      {"ends", Side(options.ends == EndHandling::kUpstream, "every_end")},
      {"reward_clip", options.reward_clip},
      {"clip_ratio", options.clip_ratio},
      {"value_clip", options.value_clip},
      {"target_kl", OrNull(options.target_kl)},
      {"kl_stop_factor", options.kl_stop_factor},
      {"entropy",
       {{"fixed", options.entropy.fixed},
        {"start", options.entropy.start},
        {"end", options.entropy.end},
        {"anneal_updates", options.entropy.anneal_updates},
        {"minimum", options.entropy.minimum}}},
      {"value",
       {{"target", options.value.target},
        {"start", options.value.start},
        {"warmup_updates", options.value.warmup_updates}}},
      {"contribution",
       {{"coefficient", options.contribution.coefficient},
        {"warmup_updates", options.contribution.warmup_updates}}},
      {"contribution_clip", options.contribution_clip},
      {"total_updates", options.total_updates},
      {"entropy_multipliers", options.entropy_multipliers},
      {"entropy_floors", options.entropy_floors},
      {"entropy_floor_coefs", options.entropy_floor_coefs},
      {"denominator", options.denominator == RatioDenominator::kAnchor
                          ? "anchor"
                          : "behaviour"},
      {"policy_mean",
       Side(options.policy_mean == PolicyMean::kUpstream, "steps")},
      {"entropy_over",
       Side(options.entropy_over == EntropyOver::kUpstream, "available")},
      {"statistics_over",
       Side(options.statistics_over == StatisticsOver::kUpstream, "unforced")},
      {"update_statistics", options.update_statistics},
      {"minibatch", options.minibatch},
      {"ratio_alarm", options.ratio_alarm},
      {"ratio_refuse", options.ratio_refuse}};
}

json ToJson(const ImportanceSamplingOptions& options) {
  return {{"loss", "importance_sampling"},
          {"gamma", options.gamma},
          {"rho_bar", options.rho_bar},
          {"c_bar", options.c_bar},
          {"trace_lambda", options.trace_lambda},
          {"reward_clip", options.reward_clip},
          {"value_coef", options.value_coef},
          {"entropy_coef", options.entropy_coef},
          {"contribution_coef", options.contribution_coef},
          {"contribution_clip", options.contribution_clip},
          {"max_version_lag", options.max_version_lag},
          {"update_statistics", options.update_statistics},
          {"minibatch", options.minibatch},
          {"ratio_alarm", options.ratio_alarm},
          {"ratio_refuse", options.ratio_refuse}};
}

json ToJson(const BehaviourCloningOptions& options) {
  return {{"loss", "behaviour_cloning"},
          {"entropy_coef", options.entropy_coef},
          {"update_statistics", options.update_statistics},
          {"minibatch", options.minibatch}};
}

json ToJson(const OptimStepOptions& options) {
  return {{"max_grad_norm", options.max_grad_norm},
          {"learning_rate", OrNull(options.learning_rate)}};
}

}  // namespace esper::ppo
