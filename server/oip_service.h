#ifndef ESPER_SERVER_OIP_SERVICE_H_
#define ESPER_SERVER_OIP_SERVICE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "inference/grpc_service.grpc.pb.h"
#include "server/clock.h"
#include "server/inference_options.h"
#include "server/inference_service.h"
#include "server/oip_model.h"
#include "server/oip_sequences.h"
#include "server/policy_store.h"
#include "server/server_counters.h"

namespace esper::server {

// inference.GRPCInferenceService, the Open Inference Protocol v2, over the
// episodes and the engine of the inference service.
//
// Thread safety: any thread may call any method.
class OipService : public inference::GRPCInferenceService::CallbackService {
 public:
  // All pointees must outlive the service; `inference` must be drained before
  // the service goes.
  OipService(const InferenceOptions& options, InferenceService* inference,
             PolicyStore* policies, ServerCounters* counters, Clock clock);

  grpc::ServerUnaryReactor* ServerLive(
      grpc::CallbackServerContext* context,
      const inference::ServerLiveRequest* request,
      inference::ServerLiveResponse* response) override;
  grpc::ServerUnaryReactor* ServerReady(
      grpc::CallbackServerContext* context,
      const inference::ServerReadyRequest* request,
      inference::ServerReadyResponse* response) override;
  grpc::ServerUnaryReactor* ModelReady(
      grpc::CallbackServerContext* context,
      const inference::ModelReadyRequest* request,
      inference::ModelReadyResponse* response) override;
  grpc::ServerUnaryReactor* ServerMetadata(
      grpc::CallbackServerContext* context,
      const inference::ServerMetadataRequest* request,
      inference::ServerMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelMetadata(
      grpc::CallbackServerContext* context,
      const inference::ModelMetadataRequest* request,
      inference::ModelMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelInfer(
      grpc::CallbackServerContext* context,
      const inference::ModelInferRequest* request,
      inference::ModelInferResponse* response) override;
  grpc::ServerBidiReactor<inference::ModelInferRequest,
                          inference::ModelStreamInferResponse>*
  ModelStreamInfer(grpc::CallbackServerContext* context) override;

 private:
  class UnaryInfer;
  class StreamInfer;

  // NOT_FOUND for another model, FAILED_PRECONDITION (UNKNOWN_VERSION) for a
  // version that does not act.
  absl::Status CheckModel(const std::string& name,
                          const std::string& version) const;
  // The request, checked.
  absl::StatusOr<OipRequest> Decode(
      const inference::ModelInferRequest& request,
      const grpc::CallbackServerContext& context) const;
  void Encode(const OipRequest& request, const std::string& id,
              const std::vector<StepTicket>& tickets, int64_t step,
              inference::ModelInferResponse* response) const;

  InferenceService* const inference_;
  PolicyStore* const policies_;
  ServerCounters* const counters_;
  const AccessControl* const access_;
  const OipModel model_;
  OipSequences sequences_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_OIP_SERVICE_H_
