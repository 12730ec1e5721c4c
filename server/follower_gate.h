#ifndef ESPER_SERVER_FOLLOWER_GATE_H_
#define ESPER_SERVER_FOLLOWER_GATE_H_

#include <string>

#include "absl/status/status.h"
#include "grpcpp/generic/async_generic_service.h"
#include "server/follower.h"
#include "server/server_counters.h"
#include "server/serving_status.h"

namespace esper::server {

// What a follower answers in place of PolicyTraining and PolicyAdmin: GetStatus
// as it is, and every other call of the two, also one that this build does not
// know, with FAILED_PRECONDITION (FOLLOWER) and where to go. Calls of services
// that do not exist get UNIMPLEMENTED.
//
// Thread safety: as gRPC needs it.
class FollowerGate final : public grpc::CallbackGenericService {
 public:
  // All must outlive this.
  FollowerGate(const Follower& follower, const ServingStatus& status,
               ServerCounters& counters);

  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override;

 private:
  absl::Status Refusal(const std::string& method) const;

  const Follower& follower_;
  const ServingStatus& status_;
  ServerCounters& counters_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_FOLLOWER_GATE_H_
