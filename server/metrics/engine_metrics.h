#ifndef ESPER_SERVER_METRICS_ENGINE_METRICS_H_
#define ESPER_SERVER_METRICS_ENGINE_METRICS_H_

#include "absl/time/time.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"

namespace esper::server {

// Distributions that the inference engine observes as it works. A call's
// latency inside the server is the time that it waited for a worker plus that
// of the batch it ran in; they are kept apart, as they have different cures.
//
// Thread safety: any thread may call any method.
class EngineMetrics {
 public:
  // `registry` must outlive this.
  explicit EngineMetrics(prometheus::Registry& registry);

  // A call left the queue.
  void ObserveQueue(absl::Duration waited) {
    queue_.Observe(absl::ToDoubleSeconds(waited));
  }
  // A batch was run: rows of the forward pass, 0 if it only ended episodes.
  void ObserveBatch(int64_t rows, absl::Duration took) {
    compute_.Observe(absl::ToDoubleSeconds(took));
    if (rows > 0) rows_.Observe(static_cast<double>(rows));
  }

 private:
  prometheus::Histogram& queue_;
  prometheus::Histogram& compute_;
  prometheus::Histogram& rows_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_METRICS_ENGINE_METRICS_H_
