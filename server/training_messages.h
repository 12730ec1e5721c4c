#ifndef ESPER_SERVER_TRAINING_MESSAGES_H_
#define ESPER_SERVER_TRAINING_MESSAGES_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "core/ppo/learner.h"
#include "esper/v1/policy_training.pb.h"

// Messages of PolicyTraining to and from the learner's types.
namespace esper::server {

// The options of one pass: its loss (server/loss_messages.h) and scope. `heads`
// is K. MALFORMED_REQUEST naming the field if no loss is set or a coefficient
// is outside its range; BAD_SHAPE for totals of another number of heads.
absl::StatusOr<ppo::PassOptions> DecodePassOptions(
    const v1::ForwardBackwardRequest& request, int64_t heads);

// Errors as above.
absl::StatusOr<ppo::BatchTotals> DecodeTotals(const v1::BatchTotals& message,
                                              int64_t heads);

void EncodeReport(const ppo::ForwardBackwardReport& report,
                  const ppo::PassOptions& options,
                  v1::ForwardBackwardResponse* response);

void EncodeStep(const ppo::OptimStepReport& report,
                v1::OptimStepResponse* response);

// MALFORMED_REQUEST naming the field for a value outside its range.
absl::StatusOr<ppo::OptimStepOptions> DecodeOptimStep(
    const v1::OptimStepRequest& request);

// Decodes whichever cotangents are there; shapes against the evaluation are
// the learner's to check. BAD_SHAPE for anything but float32.
absl::StatusOr<ppo::Cotangents> DecodeCotangents(const v1::Cotangents& message);

}  // namespace esper::server
#endif  // ESPER_SERVER_TRAINING_MESSAGES_H_
