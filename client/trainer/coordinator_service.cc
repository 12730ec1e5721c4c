#include "client/trainer/coordinator_service.h"

#include <utility>

#include "client/status.h"
#include "spdlog/spdlog.h"

namespace esper::client {
namespace {

void SetDuration(google::protobuf::Duration* proto, absl::Duration duration) {
  proto->set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &duration));
  proto->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration)));
}

}  // namespace

CoordinatorService::CoordinatorService(
    const Options& options, EpisodeScheduler& scheduler,
    EpisodeCollector& collector,
    std::function<void(const FinishedEpisode&)> on_episode,
    std::function<absl::Time()> now)
    : options_(options),
      scheduler_(scheduler),
      collector_(collector),
      on_episode_(std::move(on_episode)),
      now_(std::move(now)) {}

grpc::Status CoordinatorService::RegisterWorker(
    grpc::ServerContext* context, const v1::RegisterWorkerRequest* request,
    v1::RegisterWorkerResponse* response) {
  auto id = scheduler_.Register(request->worker_name(), request->environments(),
                                now_());
  if (!id.ok()) return ToGrpc(id.status(), *context);
  spdlog::info("worker {} with {} environments registered as {}",
               request->worker_name(), request->environments(), *id);
  response->set_worker_id(*id);
  response->set_policy_address(options_.policy_address);
  SetDuration(response->mutable_lease(), options_.lease);
  return grpc::Status::OK;
}

grpc::Status CoordinatorService::LeaseEpisodes(
    grpc::ServerContext* context, const v1::LeaseEpisodesRequest* request,
    v1::LeaseEpisodesResponse* response) {
  auto leases = scheduler_.LeaseEpisodes(request->worker_id(),
                                         request->max_episodes(), now_());
  if (!leases.ok()) return ToGrpc(leases.status(), *context);
  for (const Lease& lease : *leases) {
    v1::EpisodeLease* proto = response->add_leases();
    proto->set_lease_id(lease.id);
    proto->set_environment_key(lease.environment_key);
    proto->set_incarnation(lease.incarnation);
    proto->set_task(options_.task);
    proto->set_seed(lease.seed);
    proto->set_max_epochs(options_.max_epochs);
    proto->set_options_json(options_.options_json);
  }
  response->set_done(scheduler_.stopped());
  SetDuration(response->mutable_retry_after(), options_.poll);
  return grpc::Status::OK;
}

grpc::Status CoordinatorService::Heartbeat(grpc::ServerContext* context,
                                           const v1::HeartbeatRequest* request,
                                           v1::HeartbeatResponse* response) {
  auto reply = scheduler_.Heartbeat(
      request->worker_id(),
      {request->lease_ids().begin(), request->lease_ids().end()}, now_());
  if (!reply.ok()) return ToGrpc(reply.status(), *context);
  heartbeat_steps_ += request->steps();
  for (const std::string& id : reply->revoked) {
    response->add_revoked_lease_ids(id);
  }
  response->set_stop(reply->stop);
  return grpc::Status::OK;
}

grpc::Status CoordinatorService::ReportEpisode(
    grpc::ServerContext* context, const v1::ReportEpisodeRequest* request,
    v1::ReportEpisodeResponse*) {
  const bool delivered = request->has_trajectory();
  return ToGrpc(delivered ? Accept(*request) : Return(*request), *context);
}

absl::Status CoordinatorService::Accept(
    const v1::ReportEpisodeRequest& request) {
  auto lease = scheduler_.Find(request.lease_id());
  if (!lease.ok()) return Return(request);  // Which says what is wrong.
  absl::Status check =
      collector_.Check(request.summary(), request.trajectory());
  if (!check.ok()) {
    spdlog::warn("episode of lease {} refused: {}", request.lease_id(),
                 Describe(check));
  }
  auto verdict = scheduler_.Report(request.worker_id(), request.lease_id(),
                                   /*delivered=*/check.ok(), now_());
  if (!verdict.ok()) return verdict.status();
  if (*verdict == EpisodeScheduler::Verdict::kDuplicate) {
    return absl::OkStatus();
  }
  if (!check.ok()) return check;
  FinishedEpisode episode;
  episode.lease = *std::move(lease);
  episode.policy_version = collector_.policy_version();
  episode.summary = request.summary();
  episode.steps = {request.steps().begin(), request.steps().end()};
  episode.trajectory = request.trajectory();
  on_episode_(episode);
  collector_.Add(std::move(episode));
  return absl::OkStatus();
}

absl::Status CoordinatorService::Return(
    const v1::ReportEpisodeRequest& request) {
  auto verdict = scheduler_.Report(request.worker_id(), request.lease_id(),
                                   /*delivered=*/false, now_());
  if (!verdict.ok()) return verdict.status();
  if (*verdict == EpisodeScheduler::Verdict::kReturned) {
    ++aborted_episodes_;
    spdlog::warn("episode of lease {} was given up after {} steps: {}",
                 request.lease_id(), request.summary().steps(),
                 request.summary().end_reason());
  }
  return absl::OkStatus();
}

}  // namespace esper::client
