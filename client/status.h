#ifndef ESPER_CLIENT_STATUS_H_
#define ESPER_CLIENT_STATUS_H_

#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "esper/v1/errors.pb.h"

// The one place where gRPC statuses and Abseil statuses meet, on the side of
// the clients. What a refusal says besides its sentence travels in the binary
// trailer `esper-error-detail-bin` and is kept as a payload of the status.
namespace esper::client {

inline constexpr char kErrorDetailTrailer[] = "esper-error-detail-bin";

// Result of a call that `context` was used for. A trailer that does not parse
// is ignored.
absl::Status FromGrpc(const grpc::Status& status,
                      const grpc::ClientContext& context);

// The same without trailers.
absl::Status FromGrpc(const grpc::Status& status);

// For the services that clients serve themselves: puts the detail, if there is
// one, into the trailers of `context`.
grpc::Status ToGrpc(const absl::Status& status, grpc::ServerContext& context);

// A status with a detail; the hint is appended to the message.
absl::Status Refusal(absl::StatusCode code, const std::string& reason,
                     const std::string& message, const std::string& hint = "");

// The detail of a refusal; empty if it has none.
std::optional<v1::ErrorDetail> ErrorDetailOf(const absl::Status& status);

// Its reason, "STEP_OUT_OF_ORDER"; empty if there is none.
std::string ReasonOf(const absl::Status& status);

// The server does not have the episode any more, or not for this client: it
// has restarted (UNKNOWN_EPISODE), the lease has run out (EPISODE_EXPIRED), or
// somebody opened the environment again (WRONG_INCARNATION). Only opening a new
// episode helps.
bool IsEpisodeLost(const absl::Status& status);

// A refusal inside a stream, as the status that a unary call ends with.
absl::Status FromRefusal(const v1::Refusal& refusal);

// One line for people: code, reason, place and sentence.
std::string Describe(const absl::Status& status);

}  // namespace esper::client
#endif  // ESPER_CLIENT_STATUS_H_
