#ifndef ESPER_SERVER_EVALUATE_STREAM_H_
#define ESPER_SERVER_EVALUATE_STREAM_H_

#include <cstdint>
#include <set>
#include <thread>  // NOLINT: joined in the destructor.

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "esper/v1/policy_training.grpc.pb.h"
#include "proto/codec/mask_codec.h"
#include "server/graph_budget.h"
#include "server/learner_thread.h"
#include "server/recording_store.h"
#include "server/server_counters.h"

namespace esper::server {

struct EvaluateStreamOptions {
  absl::Duration graph_timeout = absl::Seconds(60);  // > 0.
  int max_open_evaluations = 8;                      // Graphs per stream, >= 1.
  // Memory of the graphs of one stream and of all streams, bytes, > 0.
  int64_t max_stream_graph_bytes = int64_t{1} << 30;
  int64_t max_graph_bytes = int64_t{2} << 30;
};

class EvaluateStream;

// The open EvaluateActions streams of a server, and the watch that ends those
// whose graphs lie idle.
//
// Thread safety: any thread may call any method.
class EvaluateStreams {
 public:
  // The references must outlive this, and so must every stream's call: shut the
  // gRPC server down first.
  EvaluateStreams(LearnerThread& learner, const RecordingStore& recordings,
                  ServerCounters& counters,
                  const EvaluateStreamOptions& options);
  ~EvaluateStreams();

  // The reactor of a new stream; it deletes itself when the call is over.
  grpc::ServerBidiReactor<v1::EvaluateActionsRequest,
                          v1::EvaluateActionsResponse>*
  Open(grpc::CallbackServerContext* context) ABSL_LOCKS_EXCLUDED(mu_);

  // Graphs alive in all streams.
  int64_t OpenEvaluations() const ABSL_LOCKS_EXCLUDED(mu_);
  // Memory that graphs hold, those that are about to be freed included.
  int64_t GraphBytes() const { return budget_.used(); }

 private:
  friend class EvaluateStream;
  void Remove(EvaluateStream* stream) ABSL_LOCKS_EXCLUDED(mu_);
  void Watch() ABSL_LOCKS_EXCLUDED(mu_);

  LearnerThread& learner_;
  const RecordingStore& recordings_;
  ServerCounters& counters_;
  const EvaluateStreamOptions options_;
  const codec::MaskCodec masks_;
  GraphBudget budget_;

  // Taken before any stream's own mutex.
  mutable absl::Mutex mu_;
  std::set<EvaluateStream*> streams_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread watch_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_EVALUATE_STREAM_H_
