// The part of the server that makes it a follower.

#include <utility>

#include "absl/status/status.h"
#include "server/refusal.h"
#include "server/server.h"
#include "spdlog/spdlog.h"

namespace esper::server {

absl::Status Server::CreateFollower() {
  if (!options_.restore.empty()) {
    return Refuse("MALFORMED_REQUEST", "restore",
                  "A follower serves the versions of the server it follows, "
                  "so it cannot restore a checkpoint.",
                  "Restore it on the trainer.");
  }
  if (options_.follow.start_timeout <= absl::ZeroDuration()) {
    return Refuse("MALFORMED_REQUEST", "follow_timeout",
                  "follow_timeout must be positive.", "Set a longer time.");
  }
  follower_ = std::make_unique<Follower>(options_.follow, checkpoints_,
                                         !options_.checkpoint_dir.empty(),
                                         options_.clock);
  auto spec = follower_->FindSpec(options_.spec);
  if (!spec.ok()) return spec.status();
  policies_ = std::make_unique<PolicyStore>(*std::move(spec), StoreOptions());
  return follower_->Begin(*policies_);
}

void Server::CreateFollowerServices(ServingStatus::Gauges gauges,
                                    const std::string& device) {
  follower_status_ = std::make_unique<ServingStatus>(
      *policies_, counters_, std::move(gauges), device, options_.clock);
  gate_ =
      std::make_unique<FollowerGate>(*follower_, *follower_status_, counters_);
}

void Server::StartFollowing() {
  follower_->Run([this] {
    endpoints_->NotifyHealth();
    spdlog::info("ready with version {}", policies_->version());
  });
}

}  // namespace esper::server
