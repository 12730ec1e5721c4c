#ifndef ESPER_SERVER_TRANSPORT_LISTEN_OPTIONS_H_
#define ESPER_SERVER_TRANSPORT_LISTEN_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/transport/self_dial.h"
#include "server/transport/tls.h"

namespace esper::server {

// Where a server listens and whom it lets in.
struct ListenOptions {
  // "host:port", port 0 for any free one, or "unix:/path". Empty: no listener,
  // for tests that use `Server::InProcessChannel`.
  std::string address = "127.0.0.1:50051";
  std::vector<std::string> listen;  // Further addresses, alike.
  // Where PolicyAdmin is served, and it alone. Empty: where the rest is.
  std::string admin_address;
  // Where health is served, in plaintext, to everybody, and nothing else; for
  // probes that have no certificate. Empty: only where the rest is.
  std::string health_address;
  int socket_mode = 0600;  // Permissions of Unix sockets, [0, 0777].

  TlsFiles tls;             // Of TCP listeners, but for the health address.
  std::string access_file;  // See AccessList. Empty: everybody may do all.
  // Allows an address that other machines reach without TLS and access file.
  bool insecure = false;

  int64_t max_connections = 4096;  // Open at a time, over all listeners, > 0.
  int max_message_bytes = 64
                          << 20;  // Received, of any service: [1 MiB, 2 GiB).
  bool reflection = false;
  bool channelz = false;
  SelfDial::Options self_dial;

  // `address` and `listen`.
  std::vector<std::string> Addresses() const;
  // TLS and an access file: callers are known, and cannot be listened to.
  bool has_credentials() const { return tls.enabled() && !access_file.empty(); }
};

// INVALID_ARGUMENT for an option outside its range, and the errors of
// `CheckListenAddresses` and `CheckTlsFiles`.
absl::Status CheckListenOptions(const ListenOptions& options);

}  // namespace esper::server
#endif  // ESPER_SERVER_TRANSPORT_LISTEN_OPTIONS_H_
