#include "client/env/heartbeat.h"

#include <utility>

#include "absl/time/clock.h"
#include "client/status.h"
#include "spdlog/spdlog.h"

namespace esper::client {

Heartbeat::Heartbeat(const Options& options, CoordinatorClient& coordinator,
                     LeaseBoard& board,
                     std::function<void(const std::string&)> on_stop)
    : options_(options),
      coordinator_(coordinator),
      board_(board),
      on_stop_(std::move(on_stop)),
      last_answer_(absl::Now()),
      thread_([this] { Run(); }) {}

Heartbeat::~Heartbeat() {
  finished_.Notify();
  thread_.join();
}

void Heartbeat::Run() {
  while (!finished_.WaitForNotificationWithTimeout(options_.interval)) {
    if (!Send()) return;
  }
}

bool Heartbeat::Send() {
  const std::string worker_id = board_.worker_id();
  if (worker_id.empty()) return true;  // About to register again.
  const int64_t steps = board_.TakeSteps();
  auto reply = coordinator_.Heartbeat(worker_id, board_.Leases(), steps);
  if (reply.ok()) {
    last_answer_ = absl::Now();
    board_.Revoke(
        {reply->revoked_lease_ids().begin(), reply->revoked_lease_ids().end()});
    if (reply->stop()) {
      board_.EndRun();
      on_stop_("the coordinator says that the run is over");
    }
    return !reply->stop();
  }
  board_.CountSteps(steps);
  if (absl::IsNotFound(reply.status())) {
    last_answer_ = absl::Now();
    board_.ForgetRegistration(worker_id);
    return true;
  }
  spdlog::warn("heartbeat failed: {}", Describe(reply.status()));
  if (absl::Now() - last_answer_ < options_.patience) return true;
  board_.EndRun();
  on_stop_("the coordinator is gone");
  return false;
}

}  // namespace esper::client
