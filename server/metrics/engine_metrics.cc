#include "server/metrics/engine_metrics.h"

#include <string>

namespace esper::server {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;

// Seconds, 50 us to 2.5 s.
const Buckets kSeconds = {50e-6,  100e-6, 250e-6, 500e-6, 1e-3,
                          2.5e-3, 5e-3,   10e-3,  25e-3,  50e-3,
                          0.1,    0.25,   0.5,    1,      2.5};
const Buckets kRows = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};

prometheus::Histogram& Add(prometheus::Registry& registry,
                           const std::string& name, const std::string& help,
                           const Buckets& buckets) {
  return prometheus::BuildHistogram()
      .Name(name)
      .Help(help)
      .Register(registry)
      .Add({}, buckets);
}

}  // namespace

EngineMetrics::EngineMetrics(prometheus::Registry& registry)
    : queue_(Add(registry, "esper_action_queue_seconds",
                 "Time that a GetAction call waited for a worker.", kSeconds)),
      compute_(Add(registry, "esper_action_compute_seconds",
                   "Time of one batch: state, forward pass and sampling.",
                   kSeconds)),
      rows_(Add(registry, "esper_batch_rows", "Rows of one forward pass.",
                kRows)) {}

}  // namespace esper::server
