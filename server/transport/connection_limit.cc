#include "server/transport/connection_limit.h"

#include <sys/stat.h>

#include <algorithm>

#include "absl/time/clock.h"
#include "spdlog/spdlog.h"

namespace esper::server {
namespace {

// Looking at all connections costs a system call each. A flood of refused ones
// must not make that the accepting thread's whole work.
constexpr absl::Duration kLookInterval = absl::Milliseconds(20);

// 0 for a descriptor that is closed or no socket.
ino_t SocketOf(int descriptor) {
  struct stat entry = {};
  if (fstat(descriptor, &entry) != 0 || !S_ISSOCK(entry.st_mode)) return 0;
  return entry.st_ino;
}

}  // namespace

ConnectionLimit::ConnectionLimit(int64_t max) : max_(max) {}

void ConnectionLimit::ForgetClosed() {
  connections_.erase(std::remove_if(connections_.begin(), connections_.end(),
                                    [](const Connection& connection) {
                                      return SocketOf(connection.descriptor) !=
                                             connection.socket;
                                    }),
                     connections_.end());
  last_look_ = absl::Now();
}

bool ConnectionLimit::Admit(int descriptor) {
  absl::MutexLock lock(&mu_);
  const auto full = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return static_cast<int64_t>(connections_.size()) >= max_;
  };
  if (full() && absl::Now() - last_look_ >= kLookInterval) ForgetClosed();
  if (full()) {
    ++refused_;
    return false;
  }
  connections_.push_back({descriptor, SocketOf(descriptor)});
  return true;
}

void ConnectionLimit::NoteShortage() {
  // Every back-off comes here; the first ones are news.
  if (++shortages_ <= 3) {
    spdlog::error(
        "cannot accept connections: out of descriptors or memory; raise the "
        "limit of open files or lower --max_connections");
  }
}

int64_t ConnectionLimit::open() {
  absl::MutexLock lock(&mu_);
  ForgetClosed();
  return static_cast<int64_t>(connections_.size());
}

}  // namespace esper::server
