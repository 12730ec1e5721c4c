#ifndef ESPER_SERVER_LOSS_MESSAGES_H_
#define ESPER_SERVER_LOSS_MESSAGES_H_

#include "absl/status/statusor.h"
#include "core/ppo/learner_options.h"
#include "core/ppo/losses.h"
#include "esper/v1/policy_training.pb.h"

// The losses that the server knows, as messages and as the learner's settings.
// Thread-safe.
namespace esper::server {

// The loss that a request names, with the defaults for what it leaves unset.
// Does not set what is not in the loss: the scope of the pass.
// INVALID_ARGUMENT (MALFORMED_REQUEST) naming the field if no loss is set, the
// profile is unknown, or a setting is outside its range.
absl::StatusOr<ppo::PassOptions> DecodeLoss(
    const v1::ForwardBackwardRequest& request);
absl::StatusOr<ppo::PassOptions> DecodeLoss(
    const v1::UpdatePolicyRequest& request);

// Every setting of the loss; coefficients that follow a schedule as `used`.
void EncodeEffective(const ppo::PassOptions& options,
                     const ppo::LossOptions& used,
                     v1::ForwardBackwardResponse* response);

}  // namespace esper::server
#endif  // ESPER_SERVER_LOSS_MESSAGES_H_
