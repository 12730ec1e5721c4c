#ifndef ESPER_SERVER_METRICS_EXPORTER_H_
#define ESPER_SERVER_METRICS_EXPORTER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "prometheus/collectable.h"

namespace prometheus {
class Exposer;
}  // namespace prometheus

namespace esper::server {

// Serves metrics over HTTP at /metrics, in the text format of Prometheus.
class Exporter {
 public:
  // `address`: "host:port", port 0 for any free one. UNAVAILABLE if it cannot
  // be listened on. Collectables must outlive this.
  static absl::StatusOr<std::unique_ptr<Exporter>> Start(
      const std::string& address,
      const std::vector<const prometheus::Collectable*>& sources);
  ~Exporter();

  int port() const;

 private:
  Exporter() = default;

  std::unique_ptr<prometheus::Exposer> exposer_;
  // The exposer holds weak pointers only.
  std::vector<std::shared_ptr<prometheus::Collectable>> sources_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_METRICS_EXPORTER_H_
