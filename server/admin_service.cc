#include "server/admin_service.h"

#include <utility>

#include "server/grpc_status.h"
#include "server/learner_checkpoint.h"
#include "spdlog/spdlog.h"

namespace esper::server {

AdminService::AdminService(LearnerThread& learner, CheckpointStore& checkpoints,
                           ServerCounters& counters, Gauges gauges,
                           std::string device, Clock clock)
    : learner_(learner),
      checkpoints_(checkpoints),
      counters_(counters),
      status_(learner.policies(), counters, std::move(gauges),
              std::move(device), std::move(clock)) {}

grpc::ServerUnaryReactor* AdminService::AnswerAfter(
    grpc::CallbackServerContext* context, LearnerThread::Work work) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  learner_.Run(std::move(work),
               [this, reactor, context](const absl::Status& status) {
                 FinishCall(reactor, context, &counters_, status);
               });
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::SaveCheckpoint(
    grpc::CallbackServerContext* context,
    const v1::SaveCheckpointRequest* request,
    v1::SaveCheckpointResponse* response) {
  return AnswerAfter(context, [this, request, response](ppo::Learner& learner) {
    auto checkpoint = ToCheckpoint(learner, request->name());
    if (!checkpoint.ok()) return checkpoint.status();
    checkpoint->info.lease_token = learner_.lease().Token();
    auto info = checkpoints_.Save(*std::move(checkpoint));
    if (!info.ok()) return info.status();
    spdlog::info("saved checkpoint {} ({} bytes)", info->name,
                 info->size_bytes);
    response->set_name(info->name);
    response->set_size_bytes(info->size_bytes);
    learner_.policies().FillHeader(response->mutable_header());
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdminService::RestoreCheckpoint(
    grpc::CallbackServerContext* context,
    const v1::RestoreCheckpointRequest* request,
    v1::RestoreCheckpointResponse* response) {
  return AnswerAfter(context, [this, request, response](ppo::Learner& learner) {
    auto checkpoint = checkpoints_.Load(request->name());
    if (!checkpoint.ok()) return checkpoint.status();
    auto state = FromCheckpoint(*checkpoint);
    if (!state.ok()) return state.status();
    absl::Status status = learner.Restore(*state);
    if (!status.ok()) return status;
    status = learner_.PublishCurrent(learner);
    if (!status.ok()) return status;
    learner_.lease().End(checkpoint->info.lease_token);
    spdlog::info("restored checkpoint {}, policy version {}",
                 checkpoint->info.name, learner.policy_version());
    response->set_name(checkpoint->info.name);
    response->set_optimizer_steps(learner.optimizer_steps());
    learner_.policies().FillHeader(response->mutable_header());
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdminService::GetStatus(
    grpc::CallbackServerContext* context, const v1::GetStatusRequest*,
    v1::GetStatusResponse* response) {
  const LearnerStatus learner = learner_.Status();
  status_.Fill(response);
  response->set_role(v1::SERVER_ROLE_TRAINER);
  response->set_transitions_trained(learner.transitions_trained);
  response->set_optimizer_steps(learner.optimizer_steps);
  response->set_ratio_check_max(learner.ratio_check_max);
  response->set_unpublished_steps(learner.unpublished_steps);
  response->set_learner_holder(learner_.lease().Holder());
  for (const CheckpointInfo& info : checkpoints_.List()) {
    response->add_checkpoints(info.name);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace esper::server
