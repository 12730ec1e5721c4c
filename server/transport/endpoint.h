#ifndef ESPER_SERVER_TRANSPORT_ENDPOINT_H_
#define ESPER_SERVER_TRANSPORT_ENDPOINT_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "server/access/access_control.h"
#include "server/transport/connection_limit.h"
#include "server/transport/listener.h"
#include "server/transport/tls.h"

namespace esper::server {

// How an endpoint is reached.
struct EndpointOptions {
  std::vector<std::string> addresses;  // None: only from inside the process.
  int socket_mode = 0600;              // Of Unix sockets.
  int max_message_bytes = 4 << 20;     // Received.
  bool reflection = false;
  bool channelz = false;
  TlsFiles tls;  // Of TCP listeners.
  // Answers calls that no service knows; null: nobody does.
  grpc::CallbackGenericService* generic = nullptr;
  AccessControl* access = nullptr;  // Null: everybody may call everything.
};

// A gRPC server for some services, with its listeners.
//
// Thread safety: any thread may call any method, `Shutdown` one at a time.
class Endpoint {
 public:
  // Serves when it returns. Services, `limit` and `options.access` must outlive
  // it. The errors of `Listener::Bind`.
  static absl::StatusOr<std::unique_ptr<Endpoint>> Start(
      const EndpointOptions& options,
      const std::vector<grpc::Service*>& services, ConnectionLimit* limit);
  // Shuts down at once.
  ~Endpoint();

  Endpoint(const Endpoint&) = delete;
  Endpoint& operator=(const Endpoint&) = delete;

  // Accepts no more, lets calls end for `grace` and cancels the rest. Returns
  // when all is done.
  void Shutdown(absl::Duration grace);

  // Of the first address; 0 for a Unix socket or none.
  int port() const;
  // Where the first address can be dialled from this machine, empty for none.
  std::string self_address() const;
  // From inside the process, past TLS and access control: for tests.
  std::shared_ptr<grpc::Channel> InProcessChannel();

 private:
  Endpoint() = default;
  absl::Status Bind(const EndpointOptions& options);

  std::vector<std::string> addresses_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::unique_ptr<grpc::Server> server_;
  // Of each listener: where connections are handed over.
  std::vector<std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor>>
      acceptors_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_TRANSPORT_ENDPOINT_H_
