#ifndef ESPER_SERVER_SERVER_COUNTERS_H_
#define ESPER_SERVER_SERVER_COUNTERS_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace esper::server {

// What the server has done since it started. Thread-safe.
class ServerCounters {
 public:
  std::atomic<int64_t> actions_served{0};
  // Rows answered from memory because a step was sent again.
  std::atomic<int64_t> steps_repeated{0};
  std::atomic<int64_t> batches_run{0};
  std::atomic<int64_t> publishes{0};

  // Counts one refused call or one refusal in a stream.
  void CountRefusal(const std::string& reason) {
    absl::MutexLock lock(&mu_);
    ++refusals_[reason];
  }
  // Refusals by reason.
  std::map<std::string, int64_t> Refusals() const {
    absl::MutexLock lock(&mu_);
    return refusals_;
  }

 private:
  mutable absl::Mutex mu_;
  std::map<std::string, int64_t> refusals_ ABSL_GUARDED_BY(mu_);
};

}  // namespace esper::server
#endif  // ESPER_SERVER_SERVER_COUNTERS_H_
