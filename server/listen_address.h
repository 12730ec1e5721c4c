#ifndef ESPER_SERVER_LISTEN_ADDRESS_H_
#define ESPER_SERVER_LISTEN_ADDRESS_H_

#include <string>

#include "absl/status/status.h"

namespace esper::server {

// Refuses an address before it is listened on. INVALID_ARGUMENT if it is
// neither host:port nor unix:PATH; PERMISSION_DENIED if other machines could
// reach it and `insecure` is false, since nobody is authenticated; UNAVAILABLE
// for a Unix socket that another process listens on (gRPC would steal it).
absl::Status CheckListenAddress(const std::string& address, bool insecure);

// Whether only processes of this machine can reach the address.
bool IsLoopback(const std::string& address);

// The port, or the address itself if it has none, as a file that is complete as
// soon as it is there. INTERNAL with the system's words.
absl::Status WritePortFile(const std::string& path, const std::string& address,
                           int port);

}  // namespace esper::server
#endif  // ESPER_SERVER_LISTEN_ADDRESS_H_
