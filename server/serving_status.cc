#include "server/serving_status.h"

#include <utility>

#include "server/version.h"

namespace esper::server {

ServingStatus::ServingStatus(const PolicyStore& policies,
                             const ServerCounters& counters, Gauges gauges,
                             std::string device, Clock clock)
    : policies_(policies),
      counters_(counters),
      gauges_(std::move(gauges)),
      device_(std::move(device)),
      clock_(std::move(clock)),
      started_(clock_()) {}

void ServingStatus::Fill(v1::GetStatusResponse* response) const {
  policies_.FillHeader(response->mutable_header());
  response->set_server_version(kServerVersion);
  response->set_uptime_seconds(absl::ToDoubleSeconds(clock_() - started_));
  response->set_draining(gauges_.draining());
  response->set_open_episodes(gauges_.open_episodes());
  response->set_queued_calls(gauges_.queued_calls());
  response->set_actions_served(counters_.actions_served);
  response->set_batches_run(counters_.batches_run);
  response->set_publishes(counters_.publishes);
  for (const auto& [reason, count] : counters_.Refusals()) {
    (*response->mutable_refusals())[reason] = count;
  }
  response->set_ratio_check_max(-1);
  if (gauges_.open_evaluations) {
    response->set_open_evaluations(gauges_.open_evaluations());
    response->set_graph_bytes(gauges_.graph_bytes());
    *response->mutable_recordings() = gauges_.recordings();
  }
  if (gauges_.watchers) response->set_watchers(gauges_.watchers());
  response->set_device(device_);
}

}  // namespace esper::server
