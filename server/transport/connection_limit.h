#ifndef ESPER_SERVER_TRANSPORT_CONNECTION_LIMIT_H_
#define ESPER_SERVER_TRANSPORT_CONNECTION_LIMIT_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace esper::server {

// How many connections may be open at a time, over all listeners.
//
// gRPC owns a connection once it was handed over and does not say when it
// closes it. So a connection is known by its descriptor and the socket behind
// it (its inode): a descriptor that is closed, or is another socket by now, was
// closed by gRPC.
//
// Thread safety: any thread may call any method.
class ConnectionLimit {
 public:
  explicit ConnectionLimit(int64_t max);  // > 0.

  // Takes a connection in, before it is handed over; false if there are `max`
  // already, which counts it as refused. The caller then closes it.
  bool Admit(int descriptor) ABSL_LOCKS_EXCLUDED(mu_);

  // Accepting failed for want of descriptors or memory.
  void NoteShortage();

  int64_t open() ABSL_LOCKS_EXCLUDED(mu_);  // Now; looks at each of them.
  int64_t refused() const { return refused_; }
  int64_t shortages() const { return shortages_; }
  int64_t max() const { return max_; }

 private:
  struct Connection {
    int descriptor;
    ino_t socket;
  };

  void ForgetClosed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const int64_t max_;
  std::atomic<int64_t> refused_{0};
  std::atomic<int64_t> shortages_{0};

  absl::Mutex mu_;
  std::vector<Connection> connections_ ABSL_GUARDED_BY(mu_);
  absl::Time last_look_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
};

}  // namespace esper::server
#endif  // ESPER_SERVER_TRANSPORT_CONNECTION_LIMIT_H_
