#ifndef ESPER_SERVER_GRPC_STATUS_H_
#define ESPER_SERVER_GRPC_STATUS_H_

#include <functional>

#include "absl/status/status.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "grpcpp/support/status.h"
#include "server/server_counters.h"

// The boundary between exceptions, statuses and gRPC: nothing else in the
// server catches c10::Error or builds a failed grpc::Status.
namespace esper::server {

// Runs `body` and turns what it throws into a status:
//   esper::Error               its own code and detail
//   c10::OutOfMemoryError,
//   std::bad_alloc             RESOURCE_EXHAUSTED, OUT_OF_MEMORY
//   c10::NotImplementedError   UNIMPLEMENTED, UNIMPLEMENTED
//   c10::Error, std::exception INTERNAL, INTERNAL
// The last two are our fault: what() is logged with its backtrace, and the
// caller gets the sentence without it.
absl::Status CatchErrors(const std::function<absl::Status()>& body);

// The status as gRPC sends it, with its ErrorDetail in the trailer and in the
// details (see proto/codec/error_detail.h). `context` may be null: then no
// trailer is added. Counts a refusal. An OK status passes.
grpc::Status ToGrpcStatus(const absl::Status& status,
                          grpc::ServerContextBase* context,
                          ServerCounters* counters);

// Finishes a unary call. To be called exactly once per reactor, which may be
// gone when this returns.
void FinishCall(grpc::ServerUnaryReactor* reactor,
                grpc::CallbackServerContext* context, ServerCounters* counters,
                const absl::Status& status);

}  // namespace esper::server
#endif  // ESPER_SERVER_GRPC_STATUS_H_
