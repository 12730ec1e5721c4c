#ifndef ESPER_SERVER_TRANSPORT_LISTENER_H_
#define ESPER_SERVER_TRANSPORT_LISTENER_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/transport/connection_limit.h"

namespace esper::server {

// An address that is listened on, and the thread that accepts its connections.
//
// It is ours because this gRPC's own accepting ends for good when the process
// runs out of descriptors once (grpc/grpc#20418). This one waits for a moment
// and goes on, and it holds the number of connections down before that.
//
//   Bind -> Start -> Stop (or destructor)
//
// Thread safety: `Start` and `Stop` from one thread.
class Listener {
 public:
  // Gets an accepted connection, and owns it: non-blocking, close-on-exec, and
  // without delay if it is TCP. Called on the listener's thread.
  using Sink = std::function<void(int listener, int connection)>;

  // Binds "host:port" (port 0: any free one; a name: all of its addresses) or
  // "unix:PATH", whose socket gets the permissions `socket_mode` and replaces a
  // socket that is there (see CheckListenAddress). UNAVAILABLE, naming the
  // address, if it is in use or not of this machine.
  static absl::StatusOr<std::unique_ptr<Listener>> Bind(
      const std::string& address, int socket_mode);
  ~Listener();

  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // Accepts from now on. `limit` must outlive it.
  void Start(ConnectionLimit* limit, Sink sink);
  // Accepts no more and frees the address. A second call does nothing.
  void Stop();

  // Bound port, 0 for a Unix socket.
  int port() const { return port_; }
  bool is_unix() const { return !path_.empty(); }

 private:
  explicit Listener(std::string address);

  absl::Status BindUnix(const std::string& path, int socket_mode);
  absl::Status BindTcp();
  void Run();
  // Accepts what waits at one socket; false if descriptors have run out.
  bool AcceptAll(int socket);

  const std::string address_;
  std::string path_;  // Of a Unix socket.
  int port_ = 0;
  std::vector<int> sockets_;
  int wake_ = -1;  // Readable once the listener stops.
  ConnectionLimit* limit_ = nullptr;
  Sink sink_;
  std::thread thread_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_TRANSPORT_LISTENER_H_
