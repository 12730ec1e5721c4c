#ifndef ESPER_SERVER_PPO_MESSAGES_H_
#define ESPER_SERVER_PPO_MESSAGES_H_

#include "absl/status/statusor.h"
#include "core/policy/policy_spec.h"
#include "core/ppo/learner_options.h"
#include "core/ppo/losses.h"
#include "esper/v1/policy_training.pb.h"
#include "esper/v1/training_config.pb.h"

// Settings of messages to and from those of the learner and the policy.
// Thread-safe.
namespace esper::server {

// The options of a pass that a loss describes; what it leaves unset is the
// profile's (unspecified: the default). Does not set what is not in the loss:
// statistics and totals. INVALID_ARGUMENT (MALFORMED_REQUEST) naming the field
// for a value outside its range.
absl::StatusOr<ppo::PpoOptions> DecodePpoLoss(const v1::PpoLoss& message,
                                              v1::Profile profile);

// Every setting; coefficients that follow a schedule as `used`.
v1::PpoLoss EncodePpoLoss(const ppo::PpoOptions& options,
                          const ppo::LossOptions& used);

// What the learner is built with. Errors as above.
absl::StatusOr<ppo::LearnerConfig> DecodeLearnerConfig(
    const v1::LearnerConfig& message, v1::Profile profile);

// Every field.
v1::LearnerConfig EncodeLearnerConfig(const ppo::LearnerConfig& config);

// The network-growing policy with these slots, widths and floors; without
// floor mode the profile's. INVALID_ARGUMENT naming the field.
absl::StatusOr<policy::PolicySpec> DecodePolicyConfig(
    const v1::PolicyConfig& message, v1::Profile profile);

}  // namespace esper::server
#endif  // ESPER_SERVER_PPO_MESSAGES_H_
