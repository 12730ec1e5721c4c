#ifndef ESPER_CLIENT_ENV_HEARTBEAT_H_
#define ESPER_CLIENT_ENV_HEARTBEAT_H_

#include <functional>
#include <string>
#include <thread>  // NOLINT: joined in the destructor.

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "client/coordinator_client.h"
#include "client/env/lease_board.h"

namespace esper::client {

// Tells the coordinator regularly that this worker lives, from a thread of its
// own, since a step of the environments may take long.
class Heartbeat {
 public:
  struct Options {
    absl::Duration interval = absl::Seconds(2);
    // A coordinator that is silent for longer is taken to be gone.
    absl::Duration patience = absl::Minutes(1);
  };

  // Starts at once. `coordinator` and `board` must outlive this. `on_stop` is
  // called once, from the thread, with the reason, when the coordinator says
  // that the run is over or is gone.
  Heartbeat(const Options& options, CoordinatorClient& coordinator,
            LeaseBoard& board, std::function<void(const std::string&)> on_stop);
  ~Heartbeat();

  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

 private:
  void Run();
  // False once there is nothing more to send.
  bool Send();

  const Options options_;
  CoordinatorClient& coordinator_;
  LeaseBoard& board_;
  const std::function<void(const std::string&)> on_stop_;
  absl::Notification finished_;
  absl::Time last_answer_;  // Of the thread.
  std::thread thread_;
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_ENV_HEARTBEAT_H_
