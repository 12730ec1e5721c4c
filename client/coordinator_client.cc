#include "client/coordinator_client.h"

#include <utility>

namespace esper::client {

using Stub = v1::Coordinator::Stub;

absl::StatusOr<std::unique_ptr<CoordinatorClient>> CoordinatorClient::Connect(
    const ConnectOptions& connect, const RetryPolicy& retry) {
  auto channel = client::Connect(connect);
  if (!channel.ok()) return channel.status();
  return std::make_unique<CoordinatorClient>(*std::move(channel), retry);
}

CoordinatorClient::CoordinatorClient(std::shared_ptr<grpc::Channel> channel,
                                     const RetryPolicy& retry)
    : retry_(retry), stub_(v1::Coordinator::NewStub(std::move(channel))) {}

absl::StatusOr<v1::RegisterWorkerResponse> CoordinatorClient::RegisterWorker(
    const std::string& worker_name, int32_t environments) {
  v1::RegisterWorkerRequest request;
  request.set_worker_name(worker_name);
  request.set_environments(environments);
  return CallUnary(retry_, "RegisterWorker", *stub_, &Stub::RegisterWorker,
                   request);
}

absl::StatusOr<v1::LeaseEpisodesResponse> CoordinatorClient::LeaseEpisodes(
    const std::string& worker_id, int32_t max_episodes) {
  v1::LeaseEpisodesRequest request;
  request.set_worker_id(worker_id);
  request.set_max_episodes(max_episodes);
  return CallUnary(retry_, "LeaseEpisodes", *stub_, &Stub::LeaseEpisodes,
                   request);
}

absl::StatusOr<v1::HeartbeatResponse> CoordinatorClient::Heartbeat(
    const std::string& worker_id, const std::vector<std::string>& lease_ids,
    int64_t steps) {
  v1::HeartbeatRequest request;
  request.set_worker_id(worker_id);
  for (const std::string& id : lease_ids) request.add_lease_ids(id);
  request.set_steps(steps);
  return CallUnary(retry_, "Heartbeat", *stub_, &Stub::Heartbeat, request);
}

absl::Status CoordinatorClient::ReportEpisode(
    const v1::ReportEpisodeRequest& request) {
  return CallUnary(retry_, "ReportEpisode", *stub_, &Stub::ReportEpisode,
                   request)
      .status();
}

}  // namespace esper::client
