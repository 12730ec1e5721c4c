#include "server/training_service.h"

#include <chrono>
#include <utility>

#include "proto/codec/duration.h"
#include "proto/codec/trajectory_codec.h"
#include "server/grpc_status.h"
#include "server/ppo_messages.h"
#include "server/refusal.h"
#include "server/training_messages.h"
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
                                 ServerCounters& counters,
                                 const EvaluateStreamOptions& stream_options)
    : learner_(learner),
      counters_(counters),
      masks_(learner.policies().spec()),
      streams_(learner, counters, stream_options),
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
  auto options = DecodePpoOptions(
      request, static_cast<int64_t>(learner.spec().heads.size()));
  if (!options.ok()) return options.status();
  auto trajectories =
      codec::DecodeTrajectories(request.batch(), learner.spec(), masks_);
  if (!trajectories.ok()) return trajectories.status();
  auto report = learner.ForwardBackward(*trajectories, *options);
  if (!report.ok()) return report.status();
  learner_.NotePass(*report);
  if (report->ratio_alarm) {
    spdlog::warn(
        "ratio check {:.3g} is above the alarm limit: acting and training "
        "disagree",
        *report->ratio_check_max);
  }
  EncodeReport(*report, *options, response);
  learner_.policies().FillHeader(response->mutable_header());
  return absl::OkStatus();
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
    auto report = learner.OptimStep(*options);
    if (!report.ok()) return report.status();
    EncodeStep(*report, response);
    if (!report->stepped) {
      spdlog::warn("optimiser step skipped: {} is not finite",
                   report->nonfinite_tensor);
    }
  }
  response->set_optimizer_steps(learner.optimizer_steps());
  if (request.publish() && learner.unpublished_steps() > 0) {
    absl::Status published = learner_.Publish(learner);
    if (!published.ok()) return published;
    ++counters_.publishes;
    response->set_published(true);
    spdlog::info("published policy version {}", learner.policy_version());
  }
  learner_.policies().FillHeader(response->mutable_header());
  return absl::OkStatus();
}

}  // namespace esper::server
