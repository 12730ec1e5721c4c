#ifndef ESPER_CLIENT_COORDINATOR_CLIENT_H_
#define ESPER_CLIENT_COORDINATOR_CLIENT_H_

#include <grpcpp/channel.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/call.h"
#include "esper/v1/coordinator.grpc.pb.h"

namespace esper::client {

// How a worker finds episodes to run and reports them. A lease whose reply was
// lost comes back to the coordinator when no heartbeat names it; a report is
// accepted once however often it is sent. So all calls are retried.
//
// Thread safety: any thread may call any method.
class CoordinatorClient {
 public:
  static absl::StatusOr<std::unique_ptr<CoordinatorClient>> Connect(
      const ConnectOptions& connect, const RetryPolicy& retry = {});
  explicit CoordinatorClient(std::shared_ptr<grpc::Channel> channel,
                             const RetryPolicy& retry = {});

  // Errors: INVALID_ARGUMENT for an empty name or no environment.
  absl::StatusOr<v1::RegisterWorkerResponse> RegisterWorker(
      const std::string& worker_name, int32_t environments);

  // NOT_FOUND (reason UNKNOWN_WORKER) after the coordinator restarted: register
  // again. So for the calls below.
  absl::StatusOr<v1::LeaseEpisodesResponse> LeaseEpisodes(
      const std::string& worker_id, int32_t max_episodes);
  absl::StatusOr<v1::HeartbeatResponse> Heartbeat(
      const std::string& worker_id, const std::vector<std::string>& lease_ids,
      int64_t steps);
  absl::Status ReportEpisode(const v1::ReportEpisodeRequest& request);

 private:
  const RetryPolicy retry_;
  const std::unique_ptr<v1::Coordinator::Stub> stub_;
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_COORDINATOR_CLIENT_H_
