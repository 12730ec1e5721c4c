#include "server/listen_address.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace esper::server {
namespace {

constexpr char kUnix[] = "unix:";
// The system's limit, without the final zero.
constexpr size_t kMaxSocketPath = sizeof(sockaddr_un::sun_path) - 1;

bool IsUnix(const std::string& address) {
  return absl::StartsWith(address, kUnix);
}

// Whether somebody accepts connections on the socket; the path is not too
// long.
bool SocketInUse(const std::string& path) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, path.c_str(), path.size() + 1);
  const int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return false;
  const int connected = connect(
      descriptor, reinterpret_cast<const sockaddr*>(&name), sizeof(name));
  close(descriptor);
  return connected == 0;
}

// The path is free, or a socket that nobody listens on.
absl::Status CheckSocketPath(const std::string& path) {
  struct stat entry = {};
  if (lstat(path.c_str(), &entry) == 0) {
    if (!S_ISSOCK(entry.st_mode)) {
      return absl::UnavailableError(
          absl::StrCat("Cannot listen on unix:", path,
                       ": there is a file that is no "
                       "socket. Name another path, or remove it."));
    }
    if (SocketInUse(path)) {
      return absl::UnavailableError(
          absl::StrCat("Another process listens on unix:", path, "."));
    }
    return absl::OkStatus();
  }
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "."
                             : slash == 0               ? "/"
                                                        : path.substr(0, slash);
  if (stat(folder.c_str(), &entry) != 0 || !S_ISDIR(entry.st_mode)) {
    return absl::UnavailableError(absl::StrCat(
        "Cannot listen on unix:", path, ": there is no folder ", folder, "."));
  }
  return absl::OkStatus();
}

bool HasPort(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = -1;
  return colon != std::string::npos && colon > 0 &&
         absl::SimpleAtoi(address.substr(colon + 1), &port) && port >= 0 &&
         port <= 65535;
}

absl::Status SystemError(const std::string& what, const std::string& path) {
  return absl::InternalError(
      absl::StrCat("Cannot ", what, " ", path, ": ", std::strerror(errno)));
}

}  // namespace

std::string UnixSocketPath(const std::string& address) {
  if (!IsUnix(address)) return "";
  const std::string path = address.substr(sizeof(kUnix) - 1);
  return absl::StartsWith(path, "//") ? path.substr(2) : path;
}

bool IsLoopback(const std::string& address) {
  if (IsUnix(address)) return true;
  const std::string host = address.substr(0, address.rfind(':'));
  if (host == "localhost" || host == "[::1]") return true;
  // 127.0.0.0/8 in full: a name like 127.example.org is not loopback.
  return absl::StartsWith(host, "127.") &&
         host.find_first_not_of("0123456789.") == std::string::npos;
}

absl::Status CheckListenAddress(const std::string& address, bool insecure) {
  if (IsUnix(address)) {
    const std::string path = UnixSocketPath(address);
    if (path.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("The address ", address, " names no socket."));
    }
    if (path.size() > kMaxSocketPath) {
      return absl::InvalidArgumentError(
          absl::StrCat("The socket path ", path, " is longer than ",
                       kMaxSocketPath, " bytes."));
    }
    return CheckSocketPath(path);
  }
  if (!HasPort(address)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "The address ", address, " is neither host:port nor unix:PATH."));
  }
  if (!insecure && !IsLoopback(address)) {
    return absl::PermissionDeniedError(absl::StrCat(
        "The address ", address,
        " can be reached from other machines, and nobody is authenticated. "
        "Listen on 127.0.0.1 or a Unix socket, or accept that every caller "
        "has every role with --insecure."));
  }
  return absl::OkStatus();
}

absl::Status CheckListenAddresses(const std::vector<std::string>& addresses,
                                  bool insecure) {
  std::set<std::string> seen;
  for (const std::string& address : addresses) {
    const absl::Status valid = CheckListenAddress(address, insecure);
    if (!valid.ok()) return valid;
    if (!seen.insert(address).second && !absl::EndsWith(address, ":0")) {
      return absl::InvalidArgumentError(
          absl::StrCat("The address ", address, " comes twice."));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int> ParseSocketMode(const std::string& text) {
  char* end = nullptr;
  const long mode = std::strtol(text.c_str(), &end, 8);
  if (text.empty() || *end != '\0' || mode < 0 || mode > 0777) {
    return absl::InvalidArgumentError(absl::StrCat(
        "socket_mode must be octal digits in [0, 0777], got \"", text, "\"."));
  }
  return static_cast<int>(mode);
}

absl::Status WritePortFile(const std::string& path, const std::string& address,
                           int port) {
  const std::string partial = absl::StrCat(path, ".", getpid(), ".tmp");
  {
    std::ofstream file(partial, std::ios::trunc);
    if (port > 0) {
      file << port << '\n';
    } else {
      file << address << '\n';
    }
    file.close();
    if (!file) return SystemError("write", partial);
  }
  if (std::rename(partial.c_str(), path.c_str()) != 0) {
    const absl::Status status = SystemError("write", path);
    std::remove(partial.c_str());
    return status;
  }
  return absl::OkStatus();
}

}  // namespace esper::server
