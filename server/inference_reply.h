#ifndef ESPER_SERVER_INFERENCE_REPLY_H_
#define ESPER_SERVER_INFERENCE_REPLY_H_

#include <cstdint>
#include <vector>

#include "core/policy/policy_spec.h"
#include "esper/v1/policy_inference.pb.h"
#include "server/episode_types.h"
#include "server/policy_heads.h"
#include "server/policy_store.h"
#include "server/state_codec.h"

namespace esper::server {

// Makes the replies of GetAction and StreamActions. Immutable; any thread may
// use it.
class StepReplyEncoder {
 public:
  // Both must outlive the encoder.
  StepReplyEncoder(const PolicyStore* policies, const StateCodec* states);

  // Fills the whole response: row i is tickets[i], of which there is at least
  // one. The header names the version that answered all rows, or `version`,
  // which acts now, if they differ (some are answered from memory).
  void Encode(const std::vector<StepTicket>& tickets, int64_t version,
              bool with_entropies, v1::GetActionResponse* response) const;

 private:
  const PolicyStore* const policies_;
  const StateCodec* const states_;
  const bool wide_actions_;  // Some head has more than 256 choices.
};

// Fills everything but the header.
void EncodeClosed(const std::vector<CloseTicket>& tickets,
                  v1::CloseEpisodesResponse* response);

}  // namespace esper::server
#endif  // ESPER_SERVER_INFERENCE_REPLY_H_
