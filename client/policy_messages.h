#ifndef ESPER_CLIENT_POLICY_MESSAGES_H_
#define ESPER_CLIENT_POLICY_MESSAGES_H_

#include <vector>

#include "absl/status/statusor.h"
#include "client/policy_client.h"
#include "esper/v1/policy_inference.pb.h"

// Rows to requests, and replies to rows: the part of PolicyClient that needs
// no connection.
namespace esper::client {

// INVALID_ARGUMENT for no row, or rows whose widths differ from the first
// one's, naming the row.
absl::StatusOr<v1::GetActionRequest> ToRequest(const std::vector<StepRow>& rows,
                                               bool return_entropies);

// INVALID_ARGUMENT as above, or for a truncated episode without final input.
absl::StatusOr<v1::CloseEpisodesRequest> ToRequest(
    const std::vector<EpisodeClose>& episodes);

// INTERNAL if the reply has not `rows` rows of the documented tensors.
absl::StatusOr<std::vector<ActionRow>> FromResponse(
    const v1::GetActionResponse& response, int64_t rows);
absl::StatusOr<std::vector<ClosedEpisode>> FromResponse(
    const v1::CloseEpisodesResponse& response, int64_t rows);

}  // namespace esper::client
#endif  // ESPER_CLIENT_POLICY_MESSAGES_H_
