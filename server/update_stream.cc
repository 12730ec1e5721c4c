#include "server/update_stream.h"

#include <utility>

#include "server/grpc_status.h"

namespace esper::server {

UpdateStream::UpdateStream(grpc::CallbackServerContext* context,
                           ServerCounters& counters)
    : context_(context), counters_(counters) {}

absl::Status UpdateStream::Proceed() const {
  if (!context_->IsCancelled()) return absl::OkStatus();
  return absl::CancelledError("The call was cancelled; nothing was changed.");
}

void UpdateStream::Progress(v1::UpdateProgress progress) {
  {
    absl::MutexLock lock(&mu_);
    if (waiting_.size() >= kMaxWaiting) waiting_.pop_front();
    waiting_.emplace_back();
    *waiting_.back().mutable_progress() = std::move(progress);
  }
  Move();
}

void UpdateStream::End(const absl::Status& status,
                       v1::UpdatePolicyResponse answer) {
  {
    absl::MutexLock lock(&mu_);
    ended_ = true;
    status_ = status;
    if (status.ok()) waiting_.push_back(std::move(answer));
  }
  Move();
}

void UpdateStream::OnWriteDone(bool ok) {
  {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    broken_ = broken_ || !ok;
  }
  Move();
}

void UpdateStream::Move() {
  absl::Status status;
  bool finishes = false;
  {
    absl::MutexLock lock(&mu_);
    if (writing_) return;
    if (broken_) waiting_.clear();
    if (waiting_.empty() && !ended_) return;
    // From here on no other thread gets past this point: either a write is
    // under way, or the call is over.
    writing_ = true;
    finishes = waiting_.empty();
    if (finishes) {
      status = status_;
    } else {
      current_ = std::move(waiting_.front());
      waiting_.pop_front();
    }
  }
  // Outside of the lock: both may call back at once.
  if (finishes) {
    Finish(ToGrpcStatus(status, context_, &counters_));
  } else {
    StartWrite(&current_);
  }
}

}  // namespace esper::server
