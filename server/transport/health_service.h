#ifndef ESPER_SERVER_TRANSPORT_HEALTH_SERVICE_H_
#define ESPER_SERVER_TRANSPORT_HEALTH_SERVICE_H_

#include <functional>
#include <map>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace esper::server {

class HealthWatch;

// The standard health protocol: says whether each service works, by asking the
// part that knows it, each time.
//
// Thread safety: any thread may call any method.
class HealthService final : public grpc::health::v1::Health::CallbackService {
 public:
  // Cheap and safe from any thread.
  using Serving = std::function<bool()>;

  // What is known here, by service name; "" is the server as a whole.
  explicit HealthService(std::map<std::string, Serving> services);

  // Asks again on behalf of those who watch. To be called when an answer may
  // have changed.
  void NotifyWatchers() ABSL_LOCKS_EXCLUDED(mu_);
  // Tells those who watch that nothing is served, and ends their streams.
  void Shutdown() ABSL_LOCKS_EXCLUDED(mu_);

  grpc::ServerUnaryReactor* Check(
      grpc::CallbackServerContext* context,
      const grpc::health::v1::HealthCheckRequest* request,
      grpc::health::v1::HealthCheckResponse* response) override;
  grpc::ServerWriteReactor<grpc::health::v1::HealthCheckResponse>* Watch(
      grpc::CallbackServerContext* context,
      const grpc::health::v1::HealthCheckRequest* request) override;

 private:
  friend class HealthWatch;

  grpc::health::v1::HealthCheckResponse::ServingStatus StatusOf(
      const std::string& service) const;
  // False once the service has shut down.
  bool Add(HealthWatch* watch) ABSL_LOCKS_EXCLUDED(mu_);
  void Remove(HealthWatch* watch) ABSL_LOCKS_EXCLUDED(mu_);

  const std::map<std::string, Serving> services_;
  absl::Mutex mu_;
  std::set<HealthWatch*> watches_ ABSL_GUARDED_BY(mu_);
  bool shut_down_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_TRANSPORT_HEALTH_SERVICE_H_
