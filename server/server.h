#ifndef ESPER_SERVER_SERVER_H_
#define ESPER_SERVER_SERVER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/policy/policy_spec.h"
#include "grpcpp/channel.h"
#include "grpcpp/impl/service_type.h"
#include "grpcpp/server.h"
#include "server/clock.h"
#include "server/inference_options.h"
#include "server/policy_store.h"
#include "server/server_counters.h"

namespace esper::server {

class InferenceService;

struct ServerOptions {
  // "host:port", port 0 for any free one, or "unix:/path". Empty: no listener,
  // for tests that use `InProcessChannel`.
  std::string address = "127.0.0.1:50051";
  bool insecure = false;  // Allows an address that is not loopback.
  bool reflection = false;
  std::string device = "auto";  // "auto", "cpu" or "cuda:N".
  // Without value: the network-growing policy with slots r0c0, r0c1, r0c2.
  std::optional<policy::PolicySpec> spec;
  uint64_t init_seed = 0;      // Initial weights.
  std::string checkpoint_dir;  // Empty: checkpoints are refused.
  std::string restore;         // Name, or "latest"; empty: fresh weights.
  InferenceOptions inference;
  Clock clock = SteadyNow;
};

// Owns the policy, the services and the gRPC server, in that order.
//
//   Create -> (serving) -> Drain -> destructor
//
// Thread safety: any thread may call any method after `Create`.
class Server {
 public:
  // Listens when it returns. INVALID_ARGUMENT for an option outside its range,
  // FAILED_PRECONDITION for a device that is not here, UNAVAILABLE if the
  // address cannot be listened on, and the errors of restoring.
  static absl::StatusOr<std::unique_ptr<Server>> Create(
      const ServerOptions& options);

  // Drains, if that was not done, without waiting for calls.
  ~Server();

  // Reports "not serving", refuses new episodes and steps with DRAINING,
  // finishes what was accepted, then stops listening. Calls still open at
  // `deadline` (streams) are cancelled. Returns when all is done.
  void Drain(absl::Duration deadline);

  // Port listened on; 0 for a Unix socket or no listener.
  int port() const { return port_; }
  // Calls from inside the process, for tests.
  std::shared_ptr<grpc::Channel> InProcessChannel();

  PolicyStore& policies() { return *policies_; }
  InferenceService& inference() { return *inference_; }
  ServerCounters& counters() { return counters_; }

 private:
  explicit Server(const ServerOptions& options);

  // Makes the first version: fresh weights, or those of a checkpoint.
  absl::Status CreatePolicy();
  absl::Status Listen();

  const ServerOptions options_;
  ServerCounters counters_;
  std::unique_ptr<PolicyStore> policies_;
  std::unique_ptr<InferenceService> inference_;
  // Further services, in the order they were made.
  std::vector<std::unique_ptr<grpc::Service>> services_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> grpc_server_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_SERVER_H_
