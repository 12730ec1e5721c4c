#include "tests/testing/tcp_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace esper::testing {
namespace {

constexpr int kPollMilliseconds = 1;

sockaddr_in Local(int port) {
  sockaddr_in name = {};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  name.sin_port = htons(static_cast<uint16_t>(port));
  return name;
}

// Hands on what is there to read. False at the end of the connection.
bool Forward(int from, int to) {
  char bytes[64 << 10];
  const ssize_t got = recv(from, bytes, sizeof(bytes), 0);
  if (got <= 0) return false;
  for (ssize_t at = 0; at < got;) {
    const ssize_t sent = send(to, bytes + at, got - at, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    at += sent;
  }
  return true;
}

}  // namespace

TcpProxy::TcpProxy(int target_port) : target_(target_port) {
  Listen();
  thread_ = std::thread([this] { Work(); });
}

TcpProxy::~TcpProxy() {
  stop_ = true;
  thread_.join();
}

std::string TcpProxy::address() const {
  return absl::StrCat("127.0.0.1:", port_);
}

void TcpProxy::Listen() {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int one = 1;
  setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  sockaddr_in name = Local(port_);
  socklen_t size = sizeof(name);
  if (bind(listener_, reinterpret_cast<sockaddr*>(&name), size) != 0 ||
      listen(listener_, 64) != 0 ||
      getsockname(listener_, reinterpret_cast<sockaddr*>(&name), &size) != 0) {
    std::perror("tcp proxy");
    std::abort();
  }
  port_ = ntohs(name.sin_port);
}

void TcpProxy::Accept() {
  Pair pair;
  pair.client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
  if (pair.client < 0) return;
  pair.server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in name = Local(target_);
  const int one = 1;
  setsockopt(pair.client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  setsockopt(pair.server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  if (connect(pair.server, reinterpret_cast<const sockaddr*>(&name),
              sizeof(name)) != 0) {
    Reset(&pair);
    return;
  }
  pairs_.push_back(pair);
}

void TcpProxy::Reset(Pair* pair) {
  // Lingering for no time sends a reset instead of a farewell.
  const linger hard = {1, 0};
  for (const int socket : {pair->client, pair->server}) {
    setsockopt(socket, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    close(socket);
  }
  pair->client = -1;
}

void TcpProxy::ResetAll() {
  for (Pair& pair : pairs_) {
    Reset(&pair);
    ++cut_;
  }
  pairs_.clear();
}

void TcpProxy::Work() {
  while (!stop_) {
    const bool up = up_;
    if (up && listener_ < 0) Listen();
    if (!up && listener_ >= 0) {
      close(listener_);
      listener_ = -1;
    }
    if (const int wanted = cuts_wanted_; !up || wanted != cuts_done_) {
      cuts_done_ = wanted;
      ResetAll();
    }
    std::vector<pollfd> polled;
    polled.push_back({listener_, POLLIN, 0});
    for (const Pair& pair : pairs_) {
      polled.push_back({pair.client, POLLIN, 0});
      polled.push_back({pair.server, POLLIN, 0});
    }
    if (poll(polled.data(), polled.size(), kPollMilliseconds) <= 0) continue;
    for (size_t i = 0; i < pairs_.size(); ++i) {
      Pair& pair = pairs_[i];
      const bool alive =
          (polled[1 + 2 * i].revents == 0 ||
           Forward(pair.client, pair.server)) &&
          (polled[2 + 2 * i].revents == 0 || Forward(pair.server, pair.client));
      if (!alive) Reset(&pair);
    }
    pairs_.erase(
        std::remove_if(pairs_.begin(), pairs_.end(),
                       [](const Pair& pair) { return pair.client < 0; }),
        pairs_.end());
    if (polled[0].revents != 0) Accept();
  }
  ResetAll();
  if (listener_ >= 0) close(listener_);
}

}  // namespace esper::testing
