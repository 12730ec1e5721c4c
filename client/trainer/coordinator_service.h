#ifndef ESPER_CLIENT_TRAINER_COORDINATOR_SERVICE_H_
#define ESPER_CLIENT_TRAINER_COORDINATOR_SERVICE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/trainer/episode_collector.h"
#include "client/trainer/episode_scheduler.h"
#include "esper/v1/coordinator.grpc.pb.h"

namespace esper::client {

// Serves Coordinator: messages to the scheduler and the collector.
//
// Thread safety: as gRPC needs it. `on_episode` is called from its threads.
class CoordinatorService final : public v1::Coordinator::Service {
 public:
  struct Options {
    std::string policy_address;  // Told to the workers.
    std::string task = "digits";
    int max_epochs = 50;
    std::string options_json;  // Environment options; empty: defaults.
    absl::Duration lease = absl::Seconds(30);
    absl::Duration poll = absl::Milliseconds(200);  // Between empty answers.
  };

  // `scheduler` and `collector` must outlive this. `on_episode` sees every
  // episode that is accepted for training (none of an evaluation), before the
  // collector has it; `now` is the clock.
  CoordinatorService(const Options& options, EpisodeScheduler& scheduler,
                     EpisodeCollector& collector,
                     std::function<void(const FinishedEpisode&)> on_episode,
                     std::function<absl::Time()> now);

  grpc::Status RegisterWorker(grpc::ServerContext* context,
                              const v1::RegisterWorkerRequest* request,
                              v1::RegisterWorkerResponse* response) override;
  grpc::Status LeaseEpisodes(grpc::ServerContext* context,
                             const v1::LeaseEpisodesRequest* request,
                             v1::LeaseEpisodesResponse* response) override;
  grpc::Status Heartbeat(grpc::ServerContext* context,
                         const v1::HeartbeatRequest* request,
                         v1::HeartbeatResponse* response) override;
  grpc::Status ReportEpisode(grpc::ServerContext* context,
                             const v1::ReportEpisodeRequest* request,
                             v1::ReportEpisodeResponse* response) override;

  // Steps that the workers' heartbeats told of, for the progress display.
  int64_t heartbeat_steps() const { return heartbeat_steps_; }
  // Episodes that workers gave up.
  int64_t aborted_episodes() const { return aborted_episodes_; }

 private:
  // A finished episode of this lease.
  absl::Status Accept(const v1::ReportEpisodeRequest& request, Lease lease);
  // An episode that the worker gave up, or an unknown lease.
  absl::Status Return(const v1::ReportEpisodeRequest& request);

  const Options options_;
  EpisodeScheduler& scheduler_;
  EpisodeCollector& collector_;
  const std::function<void(const FinishedEpisode&)> on_episode_;
  const std::function<absl::Time()> now_;
  std::atomic<int64_t> heartbeat_steps_{0};
  std::atomic<int64_t> aborted_episodes_{0};
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_TRAINER_COORDINATOR_SERVICE_H_
