#include "server/admin_service.h"

#include <cstdint>
#include <set>
#include <utility>

#include "server/admin_messages.h"
#include "server/grpc_status.h"
#include "server/learner_checkpoint.h"
#include "server/policy_transfer.h"
#include "server/policy_versions.h"
#include "spdlog/spdlog.h"

namespace esper::server {
namespace {

constexpr int64_t kMaxImportBytes = int64_t{2} << 30;

}  // namespace

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
    auto info =
        Save(ToCheckpoint(learner.spec(), learner.Save(), request->name()));
    if (!info.ok()) return info.status();
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
    status = learner_.versions().Restored(learner);
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
  response->set_ratio_alarms(learner.ratio_alarms);
  response->set_version_lag(learner.version_lag);
  response->set_unpublished_steps(learner.unpublished_steps);
  response->set_learner_holder(learner_.lease().Holder());
  for (const CheckpointInfo& info : checkpoints_.List()) {
    response->add_checkpoints(info.name);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

absl::StatusOr<CheckpointInfo> AdminService::Save(
    absl::StatusOr<Checkpoint> checkpoint) {
  if (!checkpoint.ok()) return checkpoint.status();
  checkpoint->info.lease_token = learner_.lease().Token();
  auto info = checkpoints_.Save(*std::move(checkpoint));
  if (info.ok()) {
    spdlog::info("saved checkpoint {} ({} bytes)", info->name,
                 info->size_bytes);
  }
  return info;
}

grpc::ServerUnaryReactor* AdminService::ListCheckpoints(
    grpc::CallbackServerContext* context, const v1::ListCheckpointsRequest*,
    v1::ListCheckpointsResponse* response) {
  for (const CheckpointInfo& info : checkpoints_.List()) {
    *response->add_checkpoints() = EncodeCheckpoint(info);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::VerifyCheckpoint(
    grpc::CallbackServerContext* context,
    const v1::VerifyCheckpointRequest* request,
    v1::VerifyCheckpointResponse* response) {
  return AnswerAfter(context, [this, request, response](ppo::Learner& learner) {
    const auto checkpoint = checkpoints_.Load(request->name());
    if (!checkpoint.ok()) return checkpoint.status();
    absl::Status sound =
        CheckCheckpoint(learner.spec(), learner.config(), *checkpoint);
    if (!sound.ok()) return sound;
    *response->mutable_checkpoint() = EncodeCheckpoint(checkpoint->info);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdminService::ListVersions(
    grpc::CallbackServerContext* context, const v1::ListVersionsRequest*,
    v1::ListVersionsResponse* response) {
  const VersionHistory::State state = learner_.versions().List();
  const std::set<int64_t> kept = learner_.versions().Kept();
  for (const auto& [version, record] : state.records) {
    *response->add_versions() = EncodeVersion(state, kept, version);
  }
  learner_.policies().FillHeader(response->mutable_header());
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::SetLabel(
    grpc::CallbackServerContext* context, const v1::SetLabelRequest* request,
    v1::SetLabelResponse* response) {
  return AnswerAfter(context, [this, request, response](ppo::Learner& learner) {
    return DoSetLabel(*request, learner.spec(), response);
  });
}

absl::Status AdminService::DoSetLabel(const v1::SetLabelRequest& request,
                                      const policy::PolicySpec& spec,
                                      v1::SetLabelResponse* response) {
  PolicyVersions& versions = learner_.versions();
  int64_t version = request.policy_version();
  // A name is taken from whichever version has it.
  const VersionHistory::State before = versions.List();
  const auto labelled = before.labels.find(request.label());
  if (request.remove() && labelled != before.labels.end()) {
    version = labelled->second;
  }
  absl::Status status = request.remove()
                            ? versions.RemoveLabel(request.label(), version)
                            : versions.SetLabel(request.label(), version, spec);
  if (!status.ok()) return status;
  const VersionHistory::State now = versions.List();
  if (version == 0) version = now.current;
  spdlog::info("label {} {} version {}", request.label(),
               request.remove() ? "taken from" : "given to", version);
  *response->mutable_version() = EncodeVersion(now, versions.Kept(), version);
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* AdminService::Rollback(
    grpc::CallbackServerContext* context, const v1::RollbackRequest* request,
    v1::RollbackResponse* response) {
  return AnswerAfter(context, [this, request, response](ppo::Learner& learner) {
    int64_t version = request->policy_version();
    if (version == 0) {
      const auto named = learner_.versions().Resolve(request->label());
      if (!named.ok()) return named.status();
      version = *named;
    }
    absl::Status status = learner_.versions().RollBack(version, learner);
    if (!status.ok()) return status;
    learner_.lease().End(/*at_least=*/0);
    spdlog::info("rolled back to version {}, which acts as version {}", version,
                 learner.policy_version());
    response->set_rolled_back_to(version);
    response->set_optimizer_steps(learner.optimizer_steps());
    learner_.policies().FillHeader(response->mutable_header());
    return absl::OkStatus();
  });
}

grpc::ServerWriteReactor<v1::ExportPolicyResponse>* AdminService::ExportPolicy(
    grpc::CallbackServerContext* context,
    const v1::ExportPolicyRequest* request) {
  return new ExportStream(learner_, counters_, context,
                          [this, name = request->name()](ppo::Learner& learner,
                                                         std::string* bytes) {
                            ppo::LearnerState state;
                            if (name.empty()) {
                              state = learner.Save();
                            } else {
                              const auto checkpoint = checkpoints_.Load(name);
                              if (!checkpoint.ok()) return checkpoint.status();
                              auto loaded = FromCheckpoint(*checkpoint);
                              if (!loaded.ok()) return loaded.status();
                              state = *std::move(loaded);
                            }
                            auto file = ToPolicyFile(learner.spec(), state);
                            if (!file.ok()) return file.status();
                            *bytes = *std::move(file);
                            return absl::OkStatus();
                          });
}

grpc::ServerReadReactor<v1::ImportPolicyRequest>* AdminService::ImportPolicy(
    grpc::CallbackServerContext* context, v1::ImportPolicyResponse* response) {
  return new ImportStream(
      learner_, counters_, context, kMaxImportBytes,
      [this, response](ppo::Learner& learner, const std::string& name,
                       const std::string& bytes) {
        return DoImport(learner, name, bytes, response);
      });
}

absl::Status AdminService::DoImport(ppo::Learner& learner,
                                    const std::string& name,
                                    const std::string& bytes,
                                    v1::ImportPolicyResponse* response) {
  const auto version = learner_.versions().TakeNumber(learner);
  if (!version.ok()) return version.status();
  const auto state =
      FromPolicyFile(learner.spec(), learner.config(), bytes, *version);
  if (!state.ok()) return state.status();
  auto info = Save(ToCheckpoint(learner.spec(), *state, name));
  if (!info.ok()) return info.status();
  *response->mutable_checkpoint() = EncodeCheckpoint(*info);
  return absl::OkStatus();
}

}  // namespace esper::server
