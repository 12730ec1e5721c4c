#ifndef ESPER_SERVER_OIP_STREAM_H_
#define ESPER_SERVER_OIP_STREAM_H_

#include <atomic>
#include <deque>
#include <functional>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "inference/grpc_service.pb.h"

namespace esper::server {

// One ModelStreamInfer: reads while fewer than `kMaxUnanswered` requests are
// unanswered, writes one answer at a time, and ends well when the client has
// half-closed and everything is answered.
//
// Lives until gRPC is done with it and nobody holds it any more. Thread safety:
// any thread may call `Answer`.
class OipStream
    : public grpc::ServerBidiReactor<inference::ModelInferRequest,
                                     inference::ModelStreamInferResponse> {
 public:
  // Takes one request, which gets exactly one `Answer`, now or later. Must not
  // throw.
  using Submit = std::function<void(const inference::ModelInferRequest& request,
                                    const std::shared_ptr<OipStream>& stream)>;

  static OipStream* Start(grpc::CallbackServerContext* context, Submit submit);

  void Answer(std::unique_ptr<inference::ModelStreamInferResponse> response)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Whether the client went away.
  bool cancelled() const { return cancelled_; }
  // Valid while a request is unanswered.
  grpc::CallbackServerContext* context() const { return context_; }

  static constexpr int kMaxUnanswered = 256;

 private:
  using Response = inference::ModelStreamInferResponse;

  OipStream(grpc::CallbackServerContext* context, Submit submit)
      : submit_(std::move(submit)), context_(context) {}

  void OnReadDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnCancel() override { cancelled_ = true; }
  void OnDone() override;

  void FinishIfDone() ABSL_LOCKS_EXCLUDED(mu_);

  const Submit submit_;
  grpc::CallbackServerContext* const context_;
  std::shared_ptr<OipStream> self_;  // Until gRPC is done.
  std::atomic<bool> cancelled_{false};
  inference::ModelInferRequest request_;  // Of the read that is under way.

  absl::Mutex mu_;
  // The first one is being written.
  std::deque<std::unique_ptr<Response>> answers_ ABSL_GUARDED_BY(mu_);
  int unanswered_ ABSL_GUARDED_BY(mu_) = 0;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool paused_ ABSL_GUARDED_BY(mu_) = false;  // No read is under way.
  bool half_closed_ ABSL_GUARDED_BY(mu_) = false;
  bool broken_ ABSL_GUARDED_BY(mu_) = false;  // Nothing can be written.
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_OIP_STREAM_H_
