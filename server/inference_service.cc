#include "server/inference_service.h"

#include <memory>
#include <utility>

#include "google/protobuf/duration.pb.h"
#include "proto/codec/duration.h"
#include "server/access/access_control.h"
#include "server/action_stream.h"
#include "server/grpc_status.h"
#include "server/refusal.h"
#include "server/waiting_call.h"

namespace esper::server {
namespace {

absl::Status Draining() {
  return Refuse("DRAINING", "", "The server is shutting down.",
                "Retry on another server.");
}

// A call of the engine that ends as a gRPC call. The reactor may be gone once
// `Finish` has finished it.
class RpcCall : public InferenceCall {
 public:
  template <typename Input>
  RpcCall(Input input, WaitingReactor* reactor,
          grpc::CallbackServerContext* context, ServerCounters* counters)
      : InferenceCall(std::move(input)),
        reactor_(reactor),
        context_(context),
        counters_(counters) {}

  absl::Status Abandoned() const override {
    return AbandonedBy(reactor_->cancelled(), context_->deadline());
  }

  void Finish(const absl::Status& status) override {
    const absl::Status encoded = status.ok() ? CatchErrors([this] {
      Encode();
      return absl::OkStatus();
    })
                                             : status;
    FinishCall(reactor_, context_, counters_, encoded);
  }

 private:
  // Fills the response.
  virtual void Encode() = 0;

  WaitingReactor* const reactor_;
  grpc::CallbackServerContext* const context_;
  ServerCounters* const counters_;
};

class StepRpc : public RpcCall {
 public:
  StepRpc(ActionInput input, bool entropies, WaitingReactor* reactor,
          grpc::CallbackServerContext* context, const StepReplyEncoder* replies,
          ServerCounters* counters, v1::GetActionResponse* response)
      : RpcCall(std::move(input), reactor, context, counters),
        entropies_(entropies),
        replies_(replies),
        response_(response) {}

 private:
  void Encode() override {
    replies_->Encode(steps_, policy_version_, entropies_, response_);
  }

  const bool entropies_;
  const StepReplyEncoder* const replies_;
  v1::GetActionResponse* const response_;
};

class CloseRpc : public RpcCall {
 public:
  CloseRpc(CloseInput input, WaitingReactor* reactor,
           grpc::CallbackServerContext* context, const PolicyStore* policies,
           ServerCounters* counters, v1::CloseEpisodesResponse* response)
      : RpcCall(std::move(input), reactor, context, counters),
        policies_(policies),
        response_(response) {}

 private:
  void Encode() override {
    EncodeClosed(closed_, response_);
    policies_->FillHeader(policy_version_, response_->mutable_header());
  }

  const PolicyStore* const policies_;
  v1::CloseEpisodesResponse* const response_;
};

}  // namespace

InferenceService::InferenceService(const InferenceOptions& options,
                                   const std::string& device,
                                   PolicyStore* policies,
                                   RecordingStore* recordings,
                                   ServerCounters* counters, Clock clock)
    : options_(options),
      device_(device),
      policies_(policies),
      counters_(counters),
      decoder_(policies->spec(), options),
      replies_(policies, &decoder_.states()),
      engine_(options, policies, recordings, counters, std::move(clock)) {}

void InferenceService::Drain() {
  RefuseWork();
  engine_.Drain();
  engine_.episodes().EndRecordings();
}

grpc::ServerUnaryReactor* InferenceService::GetPolicy(
    grpc::CallbackServerContext* context, const v1::GetPolicyRequest*,
    v1::GetPolicyResponse* response) {
  auto* reactor = context->DefaultReactor();
  const absl::Status status = CatchErrors([&] {
    const auto acting = policies_->Acting();
    if (!acting.ok()) return acting.status();
    const auto& policy = *acting;
    policies_->FillHeader(policy->version, response->mutable_header());
    response->set_spec_json(policies_->spec().ToJson());
    response->set_precision(policy->precision);
    response->set_device(device_);
    v1::Limits* limits = response->mutable_limits();
    limits->set_max_rows_per_call(options_.max_rows_per_call);
    limits->set_max_episodes(options_.max_episodes);
    limits->set_max_queued_calls(options_.max_queued_calls);
    limits->set_max_message_bytes(options_.max_message_bytes);
    limits->set_max_stream_requests(options_.max_stream_requests);
    codec::SetDuration(options_.episode_lease, limits->mutable_episode_lease());
    return absl::OkStatus();
  });
  FinishCall(reactor, context, counters_, status);
  return reactor;
}

absl::Status InferenceService::Open(const v1::OpenEpisodesRequest& request,
                                    const std::string& caller,
                                    v1::OpenEpisodesResponse* response) {
  if (draining_) return Draining();
  if (const auto acting = policies_->Acting(); !acting.ok()) {
    return acting.status();
  }
  auto starts = decoder_.DecodeOpen(request);
  if (!starts.ok()) return starts.status();
  for (EpisodeStart& start : *starts) start.owner = caller;
  const auto ids = engine_.episodes().Open(*starts);
  if (!ids.ok()) return ids.status();
  for (const std::string& id : *ids) response->add_episode_ids(id);
  codec::SetDuration(options_.episode_lease, response->mutable_lease());
  policies_->FillHeader(response->mutable_header());
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* InferenceService::OpenEpisodes(
    grpc::CallbackServerContext* context,
    const v1::OpenEpisodesRequest* request,
    v1::OpenEpisodesResponse* response) {
  auto* reactor = context->DefaultReactor();
  FinishCall(reactor, context, counters_, CatchErrors([&] {
               return Open(*request, CallerName(options_.access, *context),
                           response);
             }));
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::GetAction(
    grpc::CallbackServerContext* context, const v1::GetActionRequest* request,
    v1::GetActionResponse* response) {
  auto* reactor = new WaitingReactor;
  const absl::Status status = CatchErrors([&] {
    auto input = decoder_.DecodeAction(*request);
    if (!input.ok()) return input.status();
    SetCaller(CallerName(options_.access, *context), &input->claims);
    engine_.Enqueue(std::make_unique<StepRpc>(
        *std::move(input), request->return_entropies(), reactor, context,
        &replies_, counters_, response));
    return absl::OkStatus();
  });
  if (!status.ok()) FinishCall(reactor, context, counters_, status);
  return reactor;
}

grpc::ServerBidiReactor<v1::StreamActionsRequest, v1::StreamActionsResponse>*
InferenceService::StreamActions(grpc::CallbackServerContext* context) {
  ActionStreamParts parts;
  parts.decoder = &decoder_;
  parts.replies = &replies_;
  parts.engine = &engine_;
  parts.counters = counters_;
  parts.access = options_.access;
  parts.max_requests = options_.max_stream_requests;
  return NewActionStream(parts, context);
}

grpc::ServerUnaryReactor* InferenceService::CloseEpisodes(
    grpc::CallbackServerContext* context,
    const v1::CloseEpisodesRequest* request,
    v1::CloseEpisodesResponse* response) {
  auto* reactor = new WaitingReactor;
  const absl::Status status = CatchErrors([&] {
    auto input = decoder_.DecodeClose(*request);
    if (!input.ok()) return input.status();
    SetCaller(CallerName(options_.access, *context), &input->claims);
    engine_.Enqueue(std::make_unique<CloseRpc>(
        *std::move(input), reactor, context, policies_, counters_, response));
    return absl::OkStatus();
  });
  if (!status.ok()) FinishCall(reactor, context, counters_, status);
  return reactor;
}

}  // namespace esper::server
