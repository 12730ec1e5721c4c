#include "server/transport/listener.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/listen_address.h"
#include "spdlog/spdlog.h"

namespace esper::server {
namespace {

// After descriptors have run out.
constexpr int kBackOffMilliseconds = 20;

absl::Status CannotListen(const std::string& address, const std::string& why) {
  return absl::UnavailableError(
      absl::StrCat("Cannot listen on ", address, ": ", why, "."));
}

absl::Status CannotListen(const std::string& address) {
  if (errno == EADDRINUSE) {
    return CannotListen(address, "the address is in use");
  }
  if (errno == EADDRNOTAVAIL) {
    return CannotListen(address, "the address is not of this machine");
  }
  return CannotListen(address, std::strerror(errno));
}

void SetOption(int socket, int level, int option, int value) {
  setsockopt(socket, level, option, &value, sizeof(value));
}

int PortOf(const sockaddr_storage& name) {
  return ntohs(name.ss_family == AF_INET6
                   ? reinterpret_cast<const sockaddr_in6&>(name).sin6_port
                   : reinterpret_cast<const sockaddr_in&>(name).sin_port);
}

void SetPort(int port, sockaddr* name) {
  if (name->sa_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6*>(name)->sin6_port = htons(port);
  } else {
    reinterpret_cast<sockaddr_in*>(name)->sin_port = htons(port);
  }
}

}  // namespace

Listener::Listener(std::string address) : address_(std::move(address)) {}

Listener::~Listener() { Stop(); }

absl::StatusOr<std::unique_ptr<Listener>> Listener::Bind(
    const std::string& address, int socket_mode) {
  std::unique_ptr<Listener> listener(new Listener(address));
  const std::string path = UnixSocketPath(address);
  const absl::Status bound = path.empty()
                                 ? listener->BindTcp()
                                 : listener->BindUnix(path, socket_mode);
  if (!bound.ok()) return bound;
  listener->wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (listener->wake_ < 0) return CannotListen(address);
  return listener;
}

absl::Status Listener::BindUnix(const std::string& path, int socket_mode) {
  const int socket =
      ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (socket < 0) return CannotListen(address_);
  sockets_.push_back(socket);
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  std::strncpy(name.sun_path, path.c_str(), sizeof(name.sun_path) - 1);
  unlink(path.c_str());
  // The mode, narrowed by the process's mask, holds from the moment the socket
  // is there; what the mask took away comes after.
  if (fchmod(socket, socket_mode) != 0 ||
      bind(socket, reinterpret_cast<const sockaddr*>(&name), sizeof(name)) !=
          0) {
    return CannotListen(address_);
  }
  path_ = path;
  if (chmod(path.c_str(), socket_mode) != 0) return CannotListen(address_);
  if (listen(socket, SOMAXCONN) != 0) return CannotListen(address_);
  return absl::OkStatus();
}

absl::Status Listener::BindTcp() {
  const size_t colon = address_.rfind(':');
  std::string host = address_.substr(0, colon);
  if (host.size() > 2 && host.front() == '[') {
    host = host.substr(1, host.size() - 2);
  }
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int failed = getaddrinfo(
      host.c_str(), address_.substr(colon + 1).c_str(), &hints, &found);
  if (failed != 0) return CannotListen(address_, gai_strerror(failed));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> names(found,
                                                                 freeaddrinfo);
  absl::Status first_error = CannotListen(address_, "it has no address");
  for (const addrinfo* name = found; name != nullptr; name = name->ai_next) {
    const int socket = ::socket(name->ai_family,
                                SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (socket < 0) continue;  // A machine without IPv6, say.
    SetOption(socket, SOL_SOCKET, SO_REUSEADDR, 1);
    if (name->ai_family == AF_INET6) {
      // "[::]" is meant for everybody, other names have entries of their own.
      SetOption(socket, IPPROTO_IPV6, IPV6_V6ONLY, host != "::");
    }
    if (port_ != 0) SetPort(port_, name->ai_addr);
    if (bind(socket, name->ai_addr, name->ai_addrlen) != 0 ||
        listen(socket, SOMAXCONN) != 0) {
      if (sockets_.empty()) first_error = CannotListen(address_);
      const bool taken = errno == EADDRINUSE;
      close(socket);
      // Half of a name's addresses would be somebody else's.
      if (taken) return CannotListen(address_, "the address is in use");
      continue;
    }
    sockets_.push_back(socket);
    sockaddr_storage bound = {};
    socklen_t size = sizeof(bound);
    if (getsockname(socket, reinterpret_cast<sockaddr*>(&bound), &size) == 0) {
      port_ = PortOf(bound);
    }
  }
  return sockets_.empty() ? first_error : absl::OkStatus();
}

void Listener::Start(ConnectionLimit* limit, Sink sink) {
  limit_ = limit;
  sink_ = std::move(sink);
  thread_ = std::thread([this] { Run(); });
}

void Listener::Stop() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    if (write(wake_, &one, sizeof(one)) < 0) {
      spdlog::error("cannot wake the listener of {}", address_);
    }
    thread_.join();
  }
  for (const int socket : sockets_) close(socket);
  sockets_.clear();
  if (!path_.empty()) {
    unlink(path_.c_str());
    path_.clear();
  }
  if (wake_ >= 0) close(wake_);
  wake_ = -1;
}

void Listener::Run() {
  std::vector<pollfd> waiting;
  waiting.push_back({wake_, POLLIN, 0});
  for (const int socket : sockets_) waiting.push_back({socket, POLLIN, 0});
  while (true) {
    if (poll(waiting.data(), waiting.size(), -1) < 0) continue;  // EINTR.
    if (waiting[0].revents != 0) return;
    bool descriptors = true;
    for (size_t i = 1; i < waiting.size(); ++i) {
      if (waiting[i].revents != 0) descriptors &= AcceptAll(waiting[i].fd);
    }
    // Those that wait stay in the queue of the system.
    if (!descriptors) poll(waiting.data(), 1, kBackOffMilliseconds);
  }
}

bool Listener::AcceptAll(int socket) {
  while (true) {
    const int connection =
        accept4(socket, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (connection < 0) {
      switch (errno) {
        case EAGAIN:
          return true;
        case EMFILE:
        case ENFILE:
        case ENOBUFS:
        case ENOMEM:
          limit_->NoteShortage();
          return false;
        default:  // This connection's trouble.
          continue;
      }
    }
    if (!limit_->Admit(connection)) {
      close(connection);
      continue;
    }
    if (path_.empty()) SetOption(connection, IPPROTO_TCP, TCP_NODELAY, 1);
    sink_(socket, connection);
  }
}

}  // namespace esper::server
