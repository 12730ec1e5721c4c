#include "client/trainer/coordinator_service.h"

#include <utility>

#include "client/status.h"
#include "proto/codec/duration.h"
#include "spdlog/spdlog.h"

namespace esper::client {
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
  codec::SetDuration(options_.lease, response->mutable_lease());
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
    proto->set_evaluation(lease.evaluation);
  }
  response->set_done(scheduler_.stopped());
  codec::SetDuration(options_.poll, response->mutable_retry_after());
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
  auto lease = scheduler_.Find(request->lease_id());
  const bool delivered =
      lease.ok() &&
      (lease->evaluation ? request->summary().end_kind() != v1::END_KIND_ABORTED
                         : request->has_trajectory());
  const absl::Status status =
      delivered ? Accept(*request, *std::move(lease)) : Return(*request);
  return ToGrpc(status, *context);
}

absl::Status CoordinatorService::Accept(const v1::ReportEpisodeRequest& request,
                                        Lease lease) {
  // Before the report, which is refused if the round has ended: so the version
  // is that of the lease's own round.
  auto version =
      lease.evaluation
          ? collector_.CheckEvaluation(request.summary())
          : collector_.Check(request.summary(), request.trajectory());
  if (!version.ok()) {
    spdlog::warn("episode of lease {} refused: {}", request.lease_id(),
                 Describe(version.status()));
  }
  auto verdict = scheduler_.Report(request.worker_id(), request.lease_id(),
                                   /*delivered=*/version.ok(), now_());
  if (!verdict.ok()) return verdict.status();
  if (*verdict == EpisodeScheduler::Verdict::kDuplicate) {
    return absl::OkStatus();
  }
  if (!version.ok()) return version.status();
  FinishedEpisode episode;
  episode.lease = std::move(lease);
  episode.policy_version = *version;
  episode.summary = request.summary();
  episode.steps = {request.steps().begin(), request.steps().end()};
  if (!episode.lease.evaluation) {
    episode.trajectory = request.trajectory();
    on_episode_(episode);
  }
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
