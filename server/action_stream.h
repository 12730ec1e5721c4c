#ifndef ESPER_SERVER_ACTION_STREAM_H_
#define ESPER_SERVER_ACTION_STREAM_H_

#include "esper/v1/policy_inference.grpc.pb.h"
#include "grpcpp/support/server_callback.h"
#include "server/access/access_control.h"
#include "server/inference_engine.h"
#include "server/inference_reply.h"
#include "server/inference_request.h"
#include "server/server_counters.h"

namespace esper::server {

// What every StreamActions stream of a service works with; all must outlive
// the streams' calls.
struct ActionStreamParts {
  const InferenceRequestDecoder* decoder = nullptr;
  const StepReplyEncoder* replies = nullptr;
  InferenceEngine* engine = nullptr;
  ServerCounters* counters = nullptr;
  const AccessControl* access = nullptr;  // See InferenceOptions.
  int max_requests = 64;                  // In flight in one stream, >= 1.
};

// The reactor of a new StreamActions stream: pipelined GetAction. It deletes
// itself when the call is over.
//
// Requests are taken as they come, up to `max_requests` that are not answered,
// and answered in the order in which they finish; a refusal is an answer. A
// request_id that is in flight, or one request too many, ends the stream with
// MALFORMED_REQUEST or BUDGET_EXCEEDED once what was accepted is answered. A
// half-close ends it with OK in the same way. When the client goes away, what
// waits for a worker is dropped, what runs is finished, and the answers are
// thrown away: steps that were taken can be asked for again.
grpc::ServerBidiReactor<v1::StreamActionsRequest, v1::StreamActionsResponse>*
NewActionStream(const ActionStreamParts& parts,
                grpc::CallbackServerContext* context);

}  // namespace esper::server
#endif  // ESPER_SERVER_ACTION_STREAM_H_
