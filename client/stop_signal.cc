#include "client/stop_signal.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace esper::client {
namespace {

// Ctrl-C reaches every process of a terminal's group, and the script that
// started them may pass it on as well: within this time both are one request.
constexpr absl::Duration kEcho = absl::Seconds(1);

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

}  // namespace

StopSignal::StopSignal() {
  const sigset_t signals = StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  thread_ = std::thread([this] { Wait(); });
}

StopSignal::~StopSignal() {
  finished_ = true;
  thread_.join();
}

void StopSignal::Stop() {
  if (!stopping_.exchange(true)) stopped_.Notify();
}

void StopSignal::Wait() {
  const sigset_t signals = StopSignals();
  absl::Time first = absl::InfiniteFuture();
  while (!finished_) {
    const timespec poll = {0, 100'000'000};
    if (sigtimedwait(&signals, nullptr, &poll) < 0) continue;
    const absl::Time now = absl::Now();
    if (now - first > kEcho) _exit(130);
    first = std::min(first, now);
    Stop();
  }
}

}  // namespace esper::client
