#ifndef ESPER_SERVER_METRICS_SERVER_METRICS_H_
#define ESPER_SERVER_METRICS_SERVER_METRICS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "prometheus/registry.h"
#include "server/learner_thread.h"
#include "server/metrics/engine_metrics.h"
#include "server/metrics/exporter.h"
#include "server/metrics/scraped_metrics.h"
#include "server/server_counters.h"
#include "server/transport/connection_limit.h"

namespace esper::server {

// All metrics of a server (docs/operations.md lists them), and the HTTP
// listener that they are scraped from.
class ServerMetrics {
 public:
  // Where the numbers come from. Functions are cheap and safe from any thread.
  struct Sources {
    const ServerCounters* counters = nullptr;
    LearnerThread* learner = nullptr;  // Null: this server does not train.
    ConnectionLimit* connections = nullptr;
    std::function<int64_t()> policy_version;
    std::function<int64_t()> open_episodes;
    std::function<int64_t()> queued_calls;
    std::function<int64_t()> open_evaluations;
    std::function<int64_t()> graph_bytes;
    std::function<int64_t()> recording_bytes;
    std::function<std::map<std::string, int64_t>()> episodes_ended;
    std::string certificate_file;  // Empty: no TLS.
  };

  ServerMetrics() : engine_(registry_) {}

  EngineMetrics& engine() { return engine_; }

  // Serves them at `address` until `Stop`. Called once at most.
  absl::Status Serve(const std::string& address, const Sources& sources);
  // Serves no more: sources may go.
  void Stop() { exporter_.reset(); }
  // Bound port; 0 unless they are served.
  int port() const { return exporter_ == nullptr ? 0 : exporter_->port(); }

 private:
  prometheus::Registry registry_;
  EngineMetrics engine_;
  ScrapedMetrics scraped_;
  std::unique_ptr<Exporter> exporter_;  // Last: reads all of the above.
};

}  // namespace esper::server
#endif  // ESPER_SERVER_METRICS_SERVER_METRICS_H_
