#include "client/action_stream_link.h"

#include <utility>

#include "client/status.h"

namespace esper::client {

void ActionStreamLink::Start() {
  absl::call_once(started_, [this] {
    self_ = shared_from_this();
    stub_->async()->StreamActions(&context_, this);
    StartRead(&reading_);
    StartCall();
  });
}

bool ActionStreamLink::Send(v1::StreamActionsRequest request) {
  {
    absl::MutexLock lock(&mu_);
    if (closed_) return false;
    unanswered_.insert(request.request_id());
    if (busy_) {
      queue_.push_back(std::move(request));
      return true;
    }
    busy_ = true;
    writing_ = std::move(request);
    // The read under way keeps the stream from being done until here; from
    // here on the hold does.
    AddHold();
  }
  StartWrite(&writing_);
  RemoveHold();
  return true;
}

void ActionStreamLink::OnWriteDone(bool ok) {
  {
    absl::MutexLock lock(&mu_);
    busy_ = false;
    if (!ok || queue_.empty()) return;  // If not ok, reading ends as well.
    busy_ = true;
    writing_ = std::move(queue_.front());
    queue_.pop_front();
  }
  StartWrite(&writing_);
}

void ActionStreamLink::OnReadDone(bool ok) {
  if (!ok) {
    absl::MutexLock lock(&mu_);
    closed_ = true;
    return;
  }
  const uint64_t id = reading_.request_id();
  bool known = false;
  {
    absl::MutexLock lock(&mu_);
    known = unanswered_.erase(id) > 0;
  }
  absl::StatusOr<v1::GetActionResponse> answer =
      absl::InternalError("The server's answer is empty.");
  if (reading_.has_response()) {
    answer = std::move(*reading_.mutable_response());
  } else if (reading_.has_refusal()) {
    const absl::Status refusal = FromRefusal(reading_.refusal());
    if (!refusal.ok()) answer = refusal;
  }
  StartRead(&reading_);
  // An answer to no question is not passed on.
  if (known) callbacks_.answered(id, std::move(answer));
}

void ActionStreamLink::OnDone(const grpc::Status& status) {
  std::set<uint64_t> unanswered;
  {
    absl::MutexLock lock(&mu_);
    closed_ = true;
    unanswered.swap(unanswered_);
  }
  absl::Status why = FromGrpc(status, context_);
  if (why.ok()) why = absl::UnavailableError("The server ended the stream.");
  for (const uint64_t id : unanswered) callbacks_.answered(id, why);
  // `closed` may be the last to know this link.
  const std::shared_ptr<ActionStreamLink> self = std::move(self_);
  callbacks_.closed(this);
}

}  // namespace esper::client
