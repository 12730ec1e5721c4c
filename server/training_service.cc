#include "server/training_service.h"

#include <chrono>
#include <memory>
#include <utility>

#include "proto/codec/duration.h"
#include "server/grpc_status.h"
#include "server/ppo_messages.h"
#include "server/recorded_batch.h"
#include "server/recording_calls.h"
#include "server/refusal.h"
#include "server/training_messages.h"
#include "server/whole_update.h"
#include "spdlog/spdlog.h"

namespace esper::server {
namespace {

// Training calls may run for long; without a deadline a caller that is gone
// would keep its work in the queue for ever.
absl::Status CheckDeadline(const grpc::CallbackServerContext& context) {
  if (context.deadline() != std::chrono::system_clock::time_point::max()) {
    return absl::OkStatus();
  }
  return Refuse("MALFORMED_REQUEST", "deadline",
                "Unary calls of PolicyTraining must have a deadline.",
                "Set a deadline on the call.");
}

// A cancelled or expired call never does work.
absl::Status CheckAlive(const grpc::CallbackServerContext& context) {
  if (!context.IsCancelled()) return absl::OkStatus();
  return absl::CancelledError("The call was cancelled before it was run.");
}

}  // namespace

TrainingService::TrainingService(LearnerThread& learner,
                                 RecordingStore& recordings,
                                 ServerCounters& counters,
                                 const EvaluateStreamOptions& stream_options)
    : learner_(learner),
      recordings_(recordings),
      counters_(counters),
      calls_(learner, recordings, counters),
      streams_(learner, recordings, counters, stream_options),
      feed_(learner.policies(), counters) {}

grpc::ServerUnaryReactor* TrainingService::Answer(
    grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  FinishCall(reactor, context, &counters_, status);
  return reactor;
}

grpc::ServerUnaryReactor* TrainingService::AnswerAfter(
    grpc::CallbackServerContext* context, LearnerThread::Work work) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  learner_.Run(
      [context, work = std::move(work)](ppo::Learner& learner) {
        absl::Status alive = CheckAlive(*context);
        return alive.ok() ? work(learner) : alive;
      },
      [this, reactor, context](const absl::Status& status) {
        FinishCall(reactor, context, &counters_, status);
      });
  return reactor;
}

grpc::ServerUnaryReactor* TrainingService::AnswerAfterWrite(
    grpc::CallbackServerContext* context, const v1::LearnerWrite& write,
    google::protobuf::MessageLite* response, LearnerThread::Work work) {
  if (absl::Status status = CheckDeadline(*context); !status.ok()) {
    return Answer(context, status);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  learner_.Write(
      write, response,
      [context, work = std::move(work)](ppo::Learner& learner) {
        absl::Status alive = CheckAlive(*context);
        return alive.ok() ? work(learner) : alive;
      },
      [this, reactor, context](const absl::Status& status) {
        FinishCall(reactor, context, &counters_, status);
      });
  return reactor;
}

grpc::ServerUnaryReactor* TrainingService::AcquireLearner(
    grpc::CallbackServerContext* context,
    const v1::AcquireLearnerRequest* request,
    v1::AcquireLearnerResponse* response) {
  absl::Status status = CheckDeadline(*context);
  if (!status.ok()) return Answer(context, status);
  // On the learner's thread, so that no write of the holder before is running,
  // and none of what it left is in the next one's gradient.
  return AnswerAfter(context, [this, request, response](ppo::Learner& learner) {
    auto grant = learner_.lease().Acquire(request->holder());
    if (!grant.ok()) return grant.status();
    if (!request->resume()) {
      learner.ClearGradients();
      if (grant->taken_over) {
        response->set_dropped_steps(learner.DropUnpublished());
      }
    }
    response->set_unpublished_steps(learner.unpublished_steps());
    response->set_has_gradient(learner.has_gradient());
    spdlog::info("learner lease {} taken by {}, {} unpublished steps dropped",
                 grant->token, request->holder(), response->dropped_steps());
    learner_.policies().FillHeader(response->mutable_header());
    response->set_lease_token(grant->token);
    codec::SetDuration(grant->duration, response->mutable_lease());
    *response->mutable_learner() = EncodeLearnerConfig(learner.config());
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* TrainingService::RenewLearner(
    grpc::CallbackServerContext* context,
    const v1::RenewLearnerRequest* request,
    v1::RenewLearnerResponse* response) {
  absl::Status status = CheckDeadline(*context);
  if (!status.ok()) return Answer(context, status);
  auto lease = learner_.lease().Renew(request->lease_token());
  if (!lease.ok()) return Answer(context, lease.status());
  codec::SetDuration(*lease, response->mutable_lease());
  return Answer(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* TrainingService::ReleaseLearner(
    grpc::CallbackServerContext* context,
    const v1::ReleaseLearnerRequest* request,
    v1::ReleaseLearnerResponse* /*response*/) {
  absl::Status status = CheckDeadline(*context);
  if (!status.ok()) return Answer(context, status);
  return Answer(context, learner_.lease().Release(request->lease_token()));
}

grpc::ServerBidiReactor<v1::EvaluateActionsRequest,
                        v1::EvaluateActionsResponse>*
TrainingService::EvaluateActions(grpc::CallbackServerContext* context) {
  return streams_.Open(context);
}

grpc::ServerUnaryReactor* TrainingService::ForwardBackward(
    grpc::CallbackServerContext* context,
    const v1::ForwardBackwardRequest* request,
    v1::ForwardBackwardResponse* response) {
  auto work = [this, request, response](ppo::Learner& learner) {
    return DoForwardBackward(learner, *request, response);
  };
  // Totals alone write nothing, except when they also feed the statistics.
  if (!request->totals_only() || request->first_pass()) {
    return AnswerAfterWrite(context, request->write(), response, work);
  }
  absl::Status status = CheckDeadline(*context);
  if (!status.ok()) return Answer(context, status);
  return AnswerAfter(context, work);
}

absl::Status TrainingService::DoForwardBackward(
    ppo::Learner& learner, const v1::ForwardBackwardRequest& request,
    v1::ForwardBackwardResponse* response) {
  auto options = DecodePassOptions(
      request, static_cast<int64_t>(learner.spec().heads.size()));
  if (!options.ok()) return options.status();
  auto trajectories = calls_.ReadTrajectories(request, *options);
  if (!trajectories.ok()) return trajectories.status();
  return calls_.ForwardBackward(learner, *trajectories, *options, response);
}

grpc::ServerUnaryReactor* TrainingService::OptimStep(
    grpc::CallbackServerContext* context, const v1::OptimStepRequest* request,
    v1::OptimStepResponse* response) {
  return AnswerAfterWrite(context, request->write(), response,
                          [this, request, response](ppo::Learner& learner) {
                            return DoOptimStep(learner, *request, response);
                          });
}

absl::Status TrainingService::DoOptimStep(ppo::Learner& learner,
                                          const v1::OptimStepRequest& request,
                                          v1::OptimStepResponse* response) {
  auto options = DecodeOptimStep(request);
  if (!options.ok()) return options.status();
  // A last pass that stopped early leaves nothing to step with, but the update
  // it belongs to may still be published.
  if (learner.has_gradient() || !request.publish()) {
    absl::Status stepped = calls_.OptimStep(learner, *options, response);
    if (!stepped.ok()) return stepped;
  }
  response->set_optimizer_steps(learner.optimizer_steps());
  if (request.publish()) {
    auto published = calls_.PublishSteps(learner);
    if (!published.ok()) return published.status();
    response->set_published(*published);
  }
  calls_.FillHeader(response->mutable_header());
  return absl::OkStatus();
}

grpc::ServerWriteReactor<v1::UpdatePolicyResponse>*
TrainingService::UpdatePolicy(grpc::CallbackServerContext* context,
                              const v1::UpdatePolicyRequest* request) {
  auto* stream = new UpdateStream(context, counters_);
  auto answer = std::make_shared<v1::UpdatePolicyResponse>();
  // One piece of work from the first pass to the publish: nothing of another
  // call can come in between, and a client that is gone is noticed by
  // `proceed`.
  learner_.Write(
      request->write(), answer.get(),
      [this, stream, request, answer](ppo::Learner& learner) {
        return DoUpdatePolicy(learner, *request, *stream, answer.get());
      },
      [stream, answer](const absl::Status& status) {
        stream->End(status, std::move(*answer));
      });
  return stream;
}

absl::Status TrainingService::DoUpdatePolicy(
    ppo::Learner& learner, const v1::UpdatePolicyRequest& request,
    UpdateStream& stream, v1::UpdatePolicyResponse* answer) {
  if (absl::Status alive = stream.Proceed(); !alive.ok()) return alive;
  auto plan = DecodeUpdatePlan(request);
  if (!plan.ok()) return plan.status();
  auto rows = calls_.ReadTrajectories(request, plan->loss);
  if (!rows.ok()) return rows.status();
  WholeUpdate::Hooks hooks;
  hooks.proceed = [this, &stream, &request] {
    absl::Status alive = stream.Proceed();
    if (!alive.ok()) return alive;
    // An update may take longer than the lease.
    return learner_.lease().Renew(request.write().lease_token()).status();
  };
  hooks.progress = [&stream](v1::UpdateProgress progress) {
    stream.Progress(std::move(progress));
  };
  return WholeUpdate(calls_, learner, *plan, hooks)
      .Run(*rows, answer->mutable_result());
}

grpc::ServerUnaryReactor* TrainingService::ListRecordings(
    grpc::CallbackServerContext* context,
    const v1::ListRecordingsRequest* request,
    v1::ListRecordingsResponse* response) {
  absl::Status status = CheckDeadline(*context);
  if (!status.ok()) return Answer(context, status);
  return Answer(context,
                server::ListRecordings(recordings_, *request, response));
}

grpc::ServerUnaryReactor* TrainingService::GetRecording(
    grpc::CallbackServerContext* context,
    const v1::GetRecordingRequest* request,
    v1::GetRecordingResponse* response) {
  absl::Status status = CheckDeadline(*context);
  if (!status.ok()) return Answer(context, status);
  return AnswerAfter(context, [this, request, response](ppo::Learner&) {
    learner_.policies().FillHeader(response->mutable_header());
    return server::GetRecording(recordings_, *request, response);
  });
}

grpc::ServerUnaryReactor* TrainingService::DiscardRecordings(
    grpc::CallbackServerContext* context,
    const v1::DiscardRecordingsRequest* request,
    v1::DiscardRecordingsResponse* response) {
  return AnswerAfterWrite(context, request->write(), response,
                          [this, request, response](ppo::Learner&) {
                            return server::DiscardRecordings(
                                recordings_, *request, response);
                          });
}

}  // namespace esper::server
