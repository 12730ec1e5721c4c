#ifndef ESPER_SERVER_METRICS_SCRAPED_METRICS_H_
#define ESPER_SERVER_METRICS_SCRAPED_METRICS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"

namespace esper::server {

// Numbers that other parts of the server keep anyway, read when somebody
// scrapes. Names of counters end in "_total", units are in the name.
//
// Thread safety: all `Add` before the first scrape; then any thread.
class ScrapedMetrics final : public prometheus::Collectable {
 public:
  // Cheap and safe from any thread.
  using Read = std::function<double()>;
  using ReadByLabel = std::function<std::map<std::string, int64_t>()>;

  void AddCounter(const std::string& name, const std::string& help, Read read);
  void AddGauge(const std::string& name, const std::string& help, Read read);
  // One counter per value of `label`; the values must be few.
  void AddCounters(const std::string& name, const std::string& help,
                   const std::string& label, ReadByLabel read);
  // A gauge that is always 1 and carries one fact as a label.
  void AddInfo(const std::string& name, const std::string& help,
               const std::string& label, const std::string& value);

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  struct Source {
    prometheus::MetricFamily family;  // Without metrics.
    std::function<std::vector<prometheus::ClientMetric>()> read;
  };

  void AddSource(const std::string& name, const std::string& help,
                 prometheus::MetricType type,
                 std::function<std::vector<prometheus::ClientMetric>()> read);

  std::vector<Source> sources_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_METRICS_SCRAPED_METRICS_H_
