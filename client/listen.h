#ifndef ESPER_CLIENT_LISTEN_H_
#define ESPER_CLIENT_LISTEN_H_

#include <grpcpp/impl/service_type.h>
#include <grpcpp/server.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Servers inside client programs.
namespace esper::client {

struct ListenOptions {
  std::string address = "127.0.0.1:0";  // host:port or unix:PATH; port 0: any.
  // Allows an address that other machines reach: nobody is authenticated.
  bool insecure = false;
  int max_message_bytes = 64 << 20;
};

struct Listener {
  std::unique_ptr<grpc::Server> server;
  int port = 0;         // 0 for a Unix socket.
  std::string address;  // With the real port.
};

// Serves `service`, which must outlive the server. INVALID_ARGUMENT for an
// address that is not host:port or unix:PATH, PERMISSION_DENIED for one beyond
// this machine without `insecure`, UNAVAILABLE if it cannot be listened on.
absl::StatusOr<Listener> Listen(const ListenOptions& options,
                                grpc::Service& service);

// Whether only processes of this machine can reach the address. A name other
// than localhost is not, whatever it resolves to.
bool IsLocalAddress(const std::string& address);

// The port as text, or the address of a Unix socket; complete as soon as the
// file is there.
absl::Status WritePortFile(const std::string& path, const Listener& listener);

}  // namespace esper::client
#endif  // ESPER_CLIENT_LISTEN_H_
