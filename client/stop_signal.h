#ifndef ESPER_CLIENT_STOP_SIGNAL_H_
#define ESPER_CLIENT_STOP_SIGNAL_H_

#include <atomic>
#include <thread>  // NOLINT: joined in the destructor.

#include "absl/synchronization/notification.h"

namespace esper::client {

// Turns SIGINT and SIGTERM into a notification: the first one asks the process
// to stop in order; another one, more than a second later, ends it at once with
// exit status 130.
//
// Make it in `main` before any other thread starts (gRPC starts some), because
// it blocks both signals for the threads that are made after it.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();

  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  // Notified once the process should stop. Lives as long as this object.
  const absl::Notification& stopped() const { return stopped_; }

  // Asks for it from inside. Any thread, any number of times.
  void Stop();

 private:
  void Wait();

  absl::Notification stopped_;
  std::atomic<bool> stopping_{false};  // Guards the single Notify.
  std::atomic<bool> finished_{false};  // The destructor runs.
  std::thread thread_;
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_STOP_SIGNAL_H_
