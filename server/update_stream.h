#ifndef ESPER_SERVER_UPDATE_STREAM_H_
#define ESPER_SERVER_UPDATE_STREAM_H_

#include <deque>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "esper/v1/policy_training.grpc.pb.h"
#include "server/server_counters.h"

namespace esper::server {

// The answer of one call of UpdatePolicy: progress as it comes, then the
// result. Messages that the client has not read wait here, few of them: of
// more, the oldest progress is dropped, never the result.
//
// Deletes itself when the call is over, which is after `End`: whoever works for
// the call may use it until then, and must call `End` exactly once, as its last
// use.
//
// Thread safety: any thread may call any method.
class UpdateStream final
    : public grpc::ServerWriteReactor<v1::UpdatePolicyResponse> {
 public:
  static constexpr size_t kMaxWaiting = 16;

  // Both must outlive the call.
  UpdateStream(grpc::CallbackServerContext* context, ServerCounters& counters);

  // CANCELLED once the client is gone.
  absl::Status Proceed() const;
  void Progress(v1::UpdateProgress progress) ABSL_LOCKS_EXCLUDED(mu_);
  // Ends the call, with `answer` as the last message if the status is OK.
  void End(const absl::Status& status, v1::UpdatePolicyResponse answer)
      ABSL_LOCKS_EXCLUDED(mu_);

  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnCancel() override {}
  void OnDone() override { delete this; }

 private:
  // Starts the next write, or finishes the call, if it is time to.
  void Move() ABSL_LOCKS_EXCLUDED(mu_);

  grpc::CallbackServerContext* const context_;
  ServerCounters& counters_;

  absl::Mutex mu_;
  std::deque<v1::UpdatePolicyResponse> waiting_ ABSL_GUARDED_BY(mu_);
  // Being written; read by gRPC while `writing_`.
  v1::UpdatePolicyResponse current_;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool broken_ ABSL_GUARDED_BY(mu_) = false;  // A write failed.
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
};

}  // namespace esper::server
#endif  // ESPER_SERVER_UPDATE_STREAM_H_
