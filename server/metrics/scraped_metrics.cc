#include "server/metrics/scraped_metrics.h"

#include <utility>

namespace esper::server {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricType;

ClientMetric CounterOf(double value) {
  ClientMetric metric;
  metric.counter.value = value;
  return metric;
}

ClientMetric GaugeOf(double value) {
  ClientMetric metric;
  metric.gauge.value = value;
  return metric;
}

}  // namespace

void ScrapedMetrics::AddSource(
    const std::string& name, const std::string& help, MetricType type,
    std::function<std::vector<ClientMetric>()> read) {
  Source source;
  source.family.name = name;
  source.family.help = help;
  source.family.type = type;
  source.read = std::move(read);
  sources_.push_back(std::move(source));
}

void ScrapedMetrics::AddCounter(const std::string& name,
                                const std::string& help, Read read) {
  AddSource(name, help, MetricType::Counter, [read = std::move(read)] {
    return std::vector<ClientMetric>{CounterOf(read())};
  });
}

void ScrapedMetrics::AddGauge(const std::string& name, const std::string& help,
                              Read read) {
  AddSource(name, help, MetricType::Gauge, [read = std::move(read)] {
    return std::vector<ClientMetric>{GaugeOf(read())};
  });
}

void ScrapedMetrics::AddCounters(const std::string& name,
                                 const std::string& help,
                                 const std::string& label, ReadByLabel read) {
  AddSource(name, help, MetricType::Counter, [label, read = std::move(read)] {
    std::vector<ClientMetric> metrics;
    for (const auto& [value, count] : read()) {
      metrics.push_back(CounterOf(static_cast<double>(count)));
      metrics.back().label.push_back({label, value});
    }
    return metrics;
  });
}

void ScrapedMetrics::AddInfo(const std::string& name, const std::string& help,
                             const std::string& label,
                             const std::string& value) {
  ClientMetric metric = GaugeOf(1);
  metric.label.push_back({label, value});
  AddSource(name, help, MetricType::Gauge,
            [metric] { return std::vector<ClientMetric>{metric}; });
}

std::vector<prometheus::MetricFamily> ScrapedMetrics::Collect() const {
  std::vector<prometheus::MetricFamily> families;
  for (const Source& source : sources_) {
    families.push_back(source.family);
    families.back().metric = source.read();
  }
  return families;
}

}  // namespace esper::server
