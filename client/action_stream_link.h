#ifndef ESPER_CLIENT_ACTION_STREAM_LINK_H_
#define ESPER_CLIENT_ACTION_STREAM_LINK_H_

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <utility>

#include "absl/base/call_once.h"
#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "esper/v1/policy_inference.grpc.pb.h"

namespace esper::client {

// One StreamActions stream, from its start until it ends for whatever reason;
// it is not opened again.
//
// Thread safety: any thread may call any method. Callbacks run on gRPC's
// threads, never under a lock.
class ActionStreamLink final
    : public grpc::ClientBidiReactor<v1::StreamActionsRequest,
                                     v1::StreamActionsResponse>,
      public std::enable_shared_from_this<ActionStreamLink> {
 public:
  struct Callbacks {
    // Exactly once for each request that `Send` took.
    std::function<void(uint64_t id, absl::StatusOr<v1::GetActionResponse>)>
        answered;
    // Exactly once, last of all.
    std::function<void(const ActionStreamLink*)> closed;
  };

  // `stub` must outlive the link.
  ActionStreamLink(v1::PolicyInference::Stub* stub, Callbacks callbacks)
      : stub_(stub), callbacks_(std::move(callbacks)) {}

  // Opens the stream, the first time. The link must be owned by a shared_ptr,
  // and keeps itself alive until `closed` has run.
  void Start();

  // After `Start`: queues a request, whose id must differ from those in flight.
  // False if the stream has ended.
  bool Send(v1::StreamActionsRequest request) ABSL_LOCKS_EXCLUDED(mu_);

  // Ends the stream; what is not answered fails with CANCELLED.
  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  v1::PolicyInference::Stub* const stub_;
  const Callbacks callbacks_;
  absl::once_flag started_;
  grpc::ClientContext context_;
  std::shared_ptr<ActionStreamLink> self_;  // Until the stream has ended.
  v1::StreamActionsRequest writing_;
  v1::StreamActionsResponse reading_;

  absl::Mutex mu_;
  std::deque<v1::StreamActionsRequest> queue_ ABSL_GUARDED_BY(mu_);
  std::set<uint64_t> unanswered_ ABSL_GUARDED_BY(mu_);
  bool busy_ ABSL_GUARDED_BY(mu_) = false;    // A write is under way.
  bool closed_ ABSL_GUARDED_BY(mu_) = false;  // Nothing is read any more.
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_ACTION_STREAM_LINK_H_
