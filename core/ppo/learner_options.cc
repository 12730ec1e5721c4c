#include "core/ppo/learner_options.h"

namespace esper::ppo {

LearnerConfig LearnerConfig::Upstream() {
  LearnerConfig config;
  // The reference implementation normalises before it records.
  config.normalize_observations = false;
  config.scale_rewards = false;
  config.popart = false;
  return config;
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

std::map<std::string, double> PpoOptions::DefaultMultipliers() {
  return {{"op", 1.0},          {"slot", 1.0},       {"blueprint", 1.3},
          {"style", 1.2},       {"tempo", 1.3},      {"alpha_target", 1.2},
          {"alpha_speed", 1.2}, {"alpha_curve", 1.2}};
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
