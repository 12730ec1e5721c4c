#ifndef ESPER_SERVER_RECORD_STEPS_H_
#define ESPER_SERVER_RECORD_STEPS_H_

#include <vector>

#include "proto/codec/mask_codec.h"
#include "server/episode_types.h"
#include "server/inference_request.h"

namespace esper::server {

// Stages the steps of one call in the recordings of its episodes: what row i of
// `input` was shown, and what ticket i answers. Rows that are repeated, or not
// recorded, are left alone. The caller holds the claims, and the recordings
// have room.
void StageSteps(const ActionInput& input, const codec::MaskCodec& masks,
                const std::vector<StepTicket>& tickets);

}  // namespace esper::server
#endif  // ESPER_SERVER_RECORD_STEPS_H_
