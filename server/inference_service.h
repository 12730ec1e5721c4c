#ifndef ESPER_SERVER_INFERENCE_SERVICE_H_
#define ESPER_SERVER_INFERENCE_SERVICE_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "esper/v1/policy_inference.grpc.pb.h"
#include "server/clock.h"
#include "server/inference_engine.h"
#include "server/inference_options.h"
#include "server/inference_reply.h"
#include "server/inference_request.h"
#include "server/policy_store.h"
#include "server/server_counters.h"

namespace esper::server {

// esper.v1.PolicyInference on the callback API: checks requests on gRPC's
// threads, and leaves the policy to the engine's workers.
//
// Thread safety: any thread may call any method.
class InferenceService : public v1::PolicyInference::CallbackService {
 public:
  // The pointers must outlive the service. `device`: "cpu".
  InferenceService(const InferenceOptions& options, const std::string& device,
                   PolicyStore* policies, RecordingStore* recordings,
                   ServerCounters* counters, Clock clock);

  // Refuses new episodes with DRAINING.
  void RefuseWork() { draining_ = true; }
  // Refuses new episodes, steps and closings with DRAINING; returns when those
  // accepted are done, and the recordings of open episodes ended.
  void Drain();
  bool draining() const { return draining_; }

  int64_t open_episodes() { return engine_.episodes().OpenCount(); }
  int64_t queued_calls() const { return engine_.queued_calls(); }
  // For services that speak other protocols over the same episodes.
  InferenceEngine& engine() { return engine_; }

  grpc::ServerUnaryReactor* GetPolicy(grpc::CallbackServerContext* context,
                                      const v1::GetPolicyRequest* request,
                                      v1::GetPolicyResponse* response) override;
  grpc::ServerUnaryReactor* OpenEpisodes(
      grpc::CallbackServerContext* context,
      const v1::OpenEpisodesRequest* request,
      v1::OpenEpisodesResponse* response) override;
  grpc::ServerUnaryReactor* GetAction(grpc::CallbackServerContext* context,
                                      const v1::GetActionRequest* request,
                                      v1::GetActionResponse* response) override;
  grpc::ServerBidiReactor<v1::StreamActionsRequest, v1::StreamActionsResponse>*
  StreamActions(grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* CloseEpisodes(
      grpc::CallbackServerContext* context,
      const v1::CloseEpisodesRequest* request,
      v1::CloseEpisodesResponse* response) override;

 private:
  absl::Status Open(const v1::OpenEpisodesRequest& request,
                    const std::string& caller,
                    v1::OpenEpisodesResponse* response);

  const InferenceOptions options_;
  const std::string device_;
  PolicyStore* const policies_;
  ServerCounters* const counters_;
  const InferenceRequestDecoder decoder_;
  const StepReplyEncoder replies_;
  std::atomic<bool> draining_{false};
  InferenceEngine engine_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_INFERENCE_SERVICE_H_
