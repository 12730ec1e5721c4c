#ifndef ESPER_SERVER_TRANSPORT_ENDPOINTS_H_
#define ESPER_SERVER_TRANSPORT_ENDPOINTS_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/impl/codegen/service_type.h"
#include "server/access/access_control.h"
#include "server/transport/connection_limit.h"
#include "server/transport/endpoint.h"
#include "server/transport/health_service.h"
#include "server/transport/listen_options.h"
#include "server/transport/self_dial.h"

namespace esper::server {

// What is served.
struct ServedServices {
  std::vector<grpc::Service*> main;  // Everywhere but on the special addresses.
  grpc::Service* admin = nullptr;    // Null: none.
  // Answers what none of the others knows; null: nobody does.
  grpc::CallbackGenericService* generic = nullptr;
  std::vector<std::string> names;  // Of all of them, for health.
  // Whether new work is taken: asks the part that takes it.
  std::function<bool()> ready;
};

// The endpoints of a server: the main one, that of the operator, that of
// probes; with the health service of all of them, and the dial that shows
// whether the main listener is alive.
//
// Health knows "" and "readiness" (new work is taken), "liveness" (the process
// reaches its own listener) and each service by name (as readiness).
//
// Thread safety: any thread may call any method, `Shutdown` one at a time.
class Endpoints {
 public:
  // Serves when it returns. `access` may be null; it and the services must
  // outlive this. The errors of `Listener::Bind`.
  static absl::StatusOr<std::unique_ptr<Endpoints>> Start(
      const ListenOptions& options, const ServedServices& services,
      AccessControl* access);
  ~Endpoints();

  // Health may have changed.
  void NotifyHealth() { health_.NotifyWatchers(); }

  // Accepts no more, lets calls end for `grace`, cancels the rest; health last,
  // so that probes see how it ends.
  void Shutdown(absl::Duration grace);

  // 0 for a Unix socket or no such listener.
  int port() const { return main_->port(); }
  int admin_port() const { return admin_ == nullptr ? 0 : admin_->port(); }
  int health_port() const { return probes_ == nullptr ? 0 : probes_->port(); }
  std::shared_ptr<grpc::Channel> InProcessChannel() {
    return main_->InProcessChannel();
  }
  ConnectionLimit& connections() { return limit_; }
  bool alive() const { return self_dial_ == nullptr || self_dial_->alive(); }

 private:
  Endpoints(const ListenOptions& options, const ServedServices& services);

  ConnectionLimit limit_;
  HealthService health_;
  std::unique_ptr<Endpoint> main_;
  std::unique_ptr<Endpoint> admin_;   // Null: part of `main_`.
  std::unique_ptr<Endpoint> probes_;  // Null: none.
  std::unique_ptr<SelfDial> self_dial_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_TRANSPORT_ENDPOINTS_H_
