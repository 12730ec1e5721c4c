#ifndef ESPER_SERVER_INFERENCE_REPLY_H_
#define ESPER_SERVER_INFERENCE_REPLY_H_

#include <cstdint>
#include <vector>

#include "esper/v1/policy_inference.pb.h"
#include "server/episode_types.h"

namespace esper::server {

// Version that answered all rows, or `current` if they differ (which happens
// where a repeated step is answered from memory).
int64_t CommonVersion(const std::vector<StepTicket>& tickets, int64_t current);

// Fills everything but the header. Row i is tickets[i]; all have K heads and C
// continuous values. `wide_actions`: some head has more than 256 choices.
void EncodeSteps(const std::vector<StepTicket>& tickets, bool wide_actions,
                 bool with_entropies, v1::GetActionResponse* response);

// Fills everything but the header.
void EncodeClosed(const std::vector<CloseTicket>& tickets,
                  v1::CloseEpisodesResponse* response);

}  // namespace esper::server
#endif  // ESPER_SERVER_INFERENCE_REPLY_H_
