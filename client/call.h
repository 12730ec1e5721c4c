#ifndef ESPER_CLIENT_CALL_H_
#define ESPER_CLIENT_CALL_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "client/credentials.h"

// Channels, deadlines and retries: what every client does the same way.
namespace esper::client {

struct ConnectOptions {
  std::string address;  // host:port or unix:PATH.
  // How long to wait for the server to listen, > 0.
  absl::Duration timeout = absl::Seconds(10);
  // Of TLS and bearer tokens; none: plaintext.
  Credentials credentials;
  // Largest message in either direction; the training service takes 64 MiB.
  int64_t max_message_bytes = 64 << 20;
  // While calls are open and nothing comes back for this long, the server is
  // asked for a sign of life; a connection that gives none within
  // `keepalive_timeout` is dropped, and its calls fail with UNAVAILABLE.
  // Servers end connections that ask more often than they allow (this one: 5
  // s). Infinite: never.
  absl::Duration keepalive_time = absl::Seconds(30);
  absl::Duration keepalive_timeout = absl::Seconds(10);
  // Once notified, the wait ends; may be null.
  const absl::Notification* stop = nullptr;
};

// A channel that is connected. The errors of `ChannelCredentialsFor`;
// INVALID_ARGUMENT for an empty address,
// UNAVAILABLE naming the address if nothing listens there in time, CANCELLED
// if it was told to stop.
absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(
    const ConnectOptions& options);

// When and how often a call is tried again. Only UNAVAILABLE,
// DEADLINE_EXCEEDED, and CANCELLED by anyone but the caller are, which is how
// lost connections show: every call that the clients retry is safe to repeat,
// because steps, writes and reports are exactly-once on the server.
struct RetryPolicy {
  // Deadline of one attempt, > 0.
  absl::Duration attempt_timeout = absl::Seconds(20);
  // No new attempt starts this long after the first one; zero: one attempt.
  absl::Duration give_up_after = absl::Seconds(60);
  // Pause before the second attempt; doubles, with jitter, up to the maximum.
  absl::Duration initial_backoff = absl::Milliseconds(50);
  absl::Duration max_backoff = absl::Seconds(2);
  // Once notified, no pause and no further attempt; may be null. Must outlive
  // the clients that use it.
  const absl::Notification* stop = nullptr;
};

// Whether a call that ended so may be tried again: the server was not reached,
// did not answer in time, or asked to be tried later. A refusal (malformed, out
// of order, unknown episode) is final.
bool IsRetryable(const absl::Status& status);

// What a pause after a failed attempt really is: between 80 % and 120 %, so
// that many clients do not come back at once.
absl::Duration WithJitter(absl::Duration pause);

// `status`, with the number of attempts in its message.
absl::Status WithAttempts(const absl::Status& status, const std::string& method,
                          int attempts);

// Runs `attempt` until it succeeds, fails for good, or the policy gives up;
// then the last status, with the number of attempts in its message. `attempt`
// gets a fresh context that has a deadline, and the attempt's number from 0.
absl::Status RetryCall(
    const RetryPolicy& policy, const std::string& method,
    const std::function<grpc::Status(grpc::ClientContext*, int)>& attempt);

// A unary call of a generated stub, with retries:
//   CallUnary(policy, "GetPolicy", stub, &Stub::GetPolicy, request)
template <typename Stub, typename Request, typename Response>
absl::StatusOr<Response> CallUnary(
    const RetryPolicy& policy, const std::string& method, Stub& stub,
    grpc::Status (Stub::*call)(grpc::ClientContext*, const Request&, Response*),
    const Request& request) {
  Response response;
  absl::Status status = RetryCall(
      policy, method, [&](grpc::ClientContext* context, int /*attempt*/) {
        response.Clear();
        return (stub.*call)(context, request, &response);
      });
  if (!status.ok()) return status;
  return response;
}

}  // namespace esper::client
#endif  // ESPER_CLIENT_CALL_H_
