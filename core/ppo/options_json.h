#ifndef ESPER_CORE_PPO_OPTIONS_JSON_H_
#define ESPER_CORE_PPO_OPTIONS_JSON_H_

#include "core/ppo/learner_options.h"
#include "nlohmann/json_fwd.hpp"

// Every setting of training as JSON, so that a checkpoint says how its weights
// came about. Field names are those of the structs; unset ones are null.
namespace esper::ppo {

nlohmann::json ToJson(const LearnerConfig& config);
// Without the totals of a split batch, which belong to its data.
nlohmann::json ToJson(const PpoOptions& options);
nlohmann::json ToJson(const ImportanceSamplingOptions& options);
nlohmann::json ToJson(const BehaviourCloningOptions& options);
nlohmann::json ToJson(const OptimStepOptions& options);

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_OPTIONS_JSON_H_
