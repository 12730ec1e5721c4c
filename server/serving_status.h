#ifndef ESPER_SERVER_SERVING_STATUS_H_
#define ESPER_SERVER_SERVING_STATUS_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/time/time.h"
#include "esper/v1/policy_admin.pb.h"
#include "server/clock.h"
#include "server/policy_store.h"
#include "server/server_counters.h"

namespace esper::server {

// The part of GetStatus that every server has, whatever its role.
//
// Thread safety: any thread may call `Fill`.
class ServingStatus {
 public:
  // What the rest of the server tells; called from any thread. The last two
  // may be null.
  struct Gauges {
    std::function<bool()> draining;
    std::function<int64_t()> open_episodes;
    std::function<int64_t()> queued_calls;
    std::function<int64_t()> open_evaluations;
    std::function<int64_t()> graph_bytes;
    std::function<v1::RecordingStatus()> recordings;
    std::function<int64_t()> watchers;
  };

  // `policies` and `counters` must outlive this. Made when the server starts.
  ServingStatus(const PolicyStore& policies, const ServerCounters& counters,
                Gauges gauges, std::string device, Clock clock);

  void Fill(v1::GetStatusResponse* response) const;

 private:
  const PolicyStore& policies_;
  const ServerCounters& counters_;
  const Gauges gauges_;
  const std::string device_;
  const Clock clock_;
  const absl::Time started_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_SERVING_STATUS_H_
