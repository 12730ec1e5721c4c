#ifndef ESPER_SERVER_LISTEN_ADDRESS_H_
#define ESPER_SERVER_LISTEN_ADDRESS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace esper::server {

// The path in "unix:PATH" or "unix://PATH"; empty for another address.
std::string UnixSocketPath(const std::string& address);

// Refuses an address before it is listened on. INVALID_ARGUMENT if it is
// neither host:port nor unix:PATH; PERMISSION_DENIED if other machines could
// reach it and `insecure` is false, since nobody is authenticated; UNAVAILABLE
// for a Unix socket that another process listens on, or whose path is taken by
// something that is no socket, or lies in no folder. A socket that nobody
// listens on any more is left behind by a process that was killed: it is
// replaced.
absl::Status CheckListenAddress(const std::string& address, bool insecure);

// The same for all of them; INVALID_ARGUMENT for one that comes twice (two free
// ports, host:0, are different).
absl::Status CheckListenAddresses(const std::vector<std::string>& addresses,
                                  bool insecure);

// Permissions in octal digits, "0600"; INVALID_ARGUMENT outside [0, 0777].
absl::StatusOr<int> ParseSocketMode(const std::string& text);

// Whether only processes of this machine can reach the address.
bool IsLoopback(const std::string& address);

// The port, or the address itself if it has none, as a file that is complete as
// soon as it is there. INTERNAL with the system's words.
absl::Status WritePortFile(const std::string& path, const std::string& address,
                           int port);

}  // namespace esper::server
#endif  // ESPER_SERVER_LISTEN_ADDRESS_H_
