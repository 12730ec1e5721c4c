#include "server/oip_service.h"

#include <chrono>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "server/access/access_control.h"
#include "server/grpc_status.h"
#include "server/oip_stream.h"
#include "server/refusal.h"
#include "server/version.h"
#include "server/waiting_call.h"

namespace esper::server {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;
using inference::ModelStreamInferResponse;

// The earlier of the call's deadline and its own timeout from now.
std::chrono::system_clock::time_point DeadlineOf(
    const grpc::CallbackServerContext& context, const OipRequest& request) {
  const absl::Duration timeout = request.parameters.timeout;
  if (timeout == absl::InfiniteDuration()) return context.deadline();
  return std::min(
      context.deadline(),
      std::chrono::system_clock::now() +
          std::chrono::microseconds(absl::ToInt64Microseconds(timeout)));
}

}  // namespace

OipService::OipService(const InferenceOptions& options,
                       InferenceService* inference, PolicyStore* policies,
                       ServerCounters* counters, Clock clock)
    : inference_(inference),
      policies_(policies),
      counters_(counters),
      access_(options.access),
      model_(policies->spec(), options),
      sequences_(&inference->engine(), std::move(clock)) {}

absl::Status OipService::CheckModel(const std::string& name,
                                    const std::string& version) const {
  if (name != model_.name()) {
    ErrorDetail detail;
    detail.reason = "UNKNOWN_MODEL";
    detail.field = "model_name";
    detail.hint = absl::StrCat("Ask for ", model_.name(), ".");
    return MakeStatus(absl::StatusCode::kNotFound, detail,
                      absl::StrCat("There is no model \"", name, "\"."));
  }
  const std::string acting = absl::StrCat(policies_->version());
  if (version.empty() || version == acting) return absl::OkStatus();
  return Refuse(
      "UNKNOWN_VERSION", "model_version",
      absl::StrCat("Version ", version, " of the model does not act."),
      absl::StrCat("Leave the version empty, or ask for ", acting, "."));
}

absl::StatusOr<OipRequest> OipService::Decode(
    const ModelInferRequest& request,
    const grpc::CallbackServerContext& context) const {
  const absl::Status model =
      CheckModel(request.model_name(), request.model_version());
  if (!model.ok()) return model;
  if (inference_->draining()) {
    return Refuse("DRAINING", "", "The server is shutting down.",
                  "Retry on another server.");
  }
  if (const auto acting = policies_->Acting(); !acting.ok()) {
    return acting.status();
  }
  auto decoded = model_.Decode(request);
  if (decoded.ok()) decoded->caller = CallerName(access_, context);
  return decoded;
}

void OipService::Encode(const OipRequest& request, const std::string& id,
                        const std::vector<StepTicket>& tickets, int64_t step,
                        ModelInferResponse* response) const {
  response->set_model_name(model_.name());
  response->set_model_version(absl::StrCat(tickets.front().answer.version));
  response->set_id(id);
  (*response->mutable_parameters())["step"].set_int64_param(step);
  model_.Encode(tickets, request, response);
}

grpc::ServerUnaryReactor* OipService::ServerLive(
    grpc::CallbackServerContext* context, const inference::ServerLiveRequest*,
    inference::ServerLiveResponse* response) {
  response->set_live(true);
  auto* reactor = context->DefaultReactor();
  FinishCall(reactor, context, counters_, absl::OkStatus());
  return reactor;
}

grpc::ServerUnaryReactor* OipService::ServerReady(
    grpc::CallbackServerContext* context, const inference::ServerReadyRequest*,
    inference::ServerReadyResponse* response) {
  response->set_ready(!inference_->draining() && policies_->version() > 0);
  auto* reactor = context->DefaultReactor();
  FinishCall(reactor, context, counters_, absl::OkStatus());
  return reactor;
}

grpc::ServerUnaryReactor* OipService::ModelReady(
    grpc::CallbackServerContext* context,
    const inference::ModelReadyRequest* request,
    inference::ModelReadyResponse* response) {
  response->set_ready(!inference_->draining() && policies_->version() > 0 &&
                      CheckModel(request->name(), request->version()).ok());
  auto* reactor = context->DefaultReactor();
  FinishCall(reactor, context, counters_, absl::OkStatus());
  return reactor;
}

grpc::ServerUnaryReactor* OipService::ServerMetadata(
    grpc::CallbackServerContext* context,
    const inference::ServerMetadataRequest*,
    inference::ServerMetadataResponse* response) {
  response->set_name("esper");
  response->set_version(kServerVersion);
  response->add_extensions("sequence");
  auto* reactor = context->DefaultReactor();
  FinishCall(reactor, context, counters_, absl::OkStatus());
  return reactor;
}

grpc::ServerUnaryReactor* OipService::ModelMetadata(
    grpc::CallbackServerContext* context,
    const inference::ModelMetadataRequest* request,
    inference::ModelMetadataResponse* response) {
  const absl::Status status = CheckModel(request->name(), request->version());
  if (status.ok()) {
    model_.Describe(response);
    response->add_versions(absl::StrCat(policies_->version()));
  }
  auto* reactor = context->DefaultReactor();
  FinishCall(reactor, context, counters_, status);
  return reactor;
}

// One ModelInfer, which lives in its sequence.
class OipService::UnaryInfer : public OipCall {
 public:
  UnaryInfer(OipRequest request, std::string id, const OipService* service,
             WaitingReactor* reactor, grpc::CallbackServerContext* context,
             ModelInferResponse* response)
      : OipCall(std::move(request)),
        id_(std::move(id)),
        service_(service),
        reactor_(reactor),
        context_(context),
        deadline_(DeadlineOf(*context, this->request())),
        response_(response) {}

  absl::Status Abandoned() const override {
    return AbandonedBy(reactor_->cancelled(), deadline_);
  }
  void Finish(const absl::Status& status,
              const std::vector<StepTicket>& tickets, int64_t step) override {
    const absl::Status encoded = !status.ok() ? status : CatchErrors([&] {
      service_->Encode(request(), id_, tickets, step, response_);
      return absl::OkStatus();
    });
    FinishCall(reactor_, context_, service_->counters_, encoded);
  }

 private:
  const std::string id_;
  const OipService* const service_;
  WaitingReactor* const reactor_;
  grpc::CallbackServerContext* const context_;
  const std::chrono::system_clock::time_point deadline_;
  ModelInferResponse* const response_;
};

grpc::ServerUnaryReactor* OipService::ModelInfer(
    grpc::CallbackServerContext* context, const ModelInferRequest* request,
    ModelInferResponse* response) {
  auto* reactor = new WaitingReactor;
  const absl::Status status = CatchErrors([&] {
    auto decoded = Decode(*request, *context);
    if (!decoded.ok()) return decoded.status();
    sequences_.Submit(std::make_unique<UnaryInfer>(
        *std::move(decoded), request->id(), this, reactor, context, response));
    return absl::OkStatus();
  });
  if (!status.ok()) FinishCall(reactor, context, counters_, status);
  return reactor;
}

// One request of a stream.
class OipService::StreamInfer : public OipCall {
 public:
  StreamInfer(OipRequest request, std::string id, const OipService* service,
              std::shared_ptr<OipStream> stream)
      : OipCall(std::move(request)),
        id_(std::move(id)),
        service_(service),
        stream_(std::move(stream)),
        deadline_(DeadlineOf(*stream_->context(), this->request())) {}

  absl::Status Abandoned() const override {
    return AbandonedBy(stream_->cancelled(), deadline_);
  }
  void Finish(const absl::Status& status,
              const std::vector<StepTicket>& tickets, int64_t step) override {
    auto response = std::make_unique<ModelStreamInferResponse>();
    const absl::Status encoded = !status.ok() ? status : CatchErrors([&] {
      service_->Encode(request(), id_, tickets, step,
                       response->mutable_infer_response());
      return absl::OkStatus();
    });
    if (!encoded.ok()) response = Refusal(*service_, id_, encoded);
    stream_->Answer(std::move(response));
  }

  static std::unique_ptr<ModelStreamInferResponse> Refusal(
      const OipService& service, const std::string& id,
      const absl::Status& status) {
    auto response = std::make_unique<ModelStreamInferResponse>();
    response->set_error_message(
        ToGrpcStatus(status, nullptr, service.counters_).error_message());
    response->mutable_infer_response()->set_model_name(service.model_.name());
    response->mutable_infer_response()->set_id(id);
    return response;
  }

 private:
  const std::string id_;
  const OipService* const service_;
  const std::shared_ptr<OipStream> stream_;  // Lives until the answer.
  const std::chrono::system_clock::time_point deadline_;
};

grpc::ServerBidiReactor<ModelInferRequest, ModelStreamInferResponse>*
OipService::ModelStreamInfer(grpc::CallbackServerContext* context) {
  return OipStream::Start(
      context, [this, context](const ModelInferRequest& request,
                               const std::shared_ptr<OipStream>& stream) {
        const absl::Status status = CatchErrors([&] {
          auto decoded = Decode(request, *context);
          if (!decoded.ok()) return decoded.status();
          sequences_.Submit(std::make_unique<StreamInfer>(
              *std::move(decoded), request.id(), this, stream));
          return absl::OkStatus();
        });
        if (!status.ok()) {
          stream->Answer(StreamInfer::Refusal(*this, request.id(), status));
        }
      });
}

}  // namespace esper::server
