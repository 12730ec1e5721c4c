#ifndef ESPER_SERVER_INFERENCE_OPTIONS_H_
#define ESPER_SERVER_INFERENCE_OPTIONS_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "core/policy/inference_precision.h"

namespace esper::server {

class AccessControl;  // server/access/access_control.h
class EngineMetrics;  // server/metrics/engine_metrics.h

// Budgets of the inference service; GetPolicy tells clients the first six.
struct InferenceOptions {
  int max_rows_per_call = 1024;  // Rows of one call, [1, 65536].
  int max_episodes = 16384;      // Open in the whole server, [1, 2^20].
  int max_queued_calls = 1024;   // Waiting for a worker, >= 1.
  int64_t max_message_bytes = 4 << 20;
  absl::Duration episode_lease = absl::Minutes(10);  // Idle time allowed, > 0.
  int max_stream_requests = 64;  // In flight in one stream, [1, 65536].

  // Signs the recurrent states that clients hold (server/state_codec.h); equal
  // on all replicas that share them. Empty: they carry a plain digest.
  std::string state_key;

  // Knows the names of callers, whose episodes are their own; null: callers are
  // not told apart.
  const AccessControl* access = nullptr;

  EngineMetrics* metrics = nullptr;  // Null: nothing is observed.

  int workers = 1;           // Threads that run the policy, [1, 64].
  int max_batch_rows = 256;  // Rows of one forward pass, >= 1.
  // Of the products of the network when it acts.
  policy::InferencePrecision precision = policy::InferencePrecision::kFp32;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_INFERENCE_OPTIONS_H_
