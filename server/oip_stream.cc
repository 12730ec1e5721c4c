#include "server/oip_stream.h"

#include <utility>

namespace esper::server {

OipStream* OipStream::Start(grpc::CallbackServerContext* context,
                            Submit submit) {
  std::shared_ptr<OipStream> stream(new OipStream(context, std::move(submit)));
  OipStream* reactor = stream.get();
  reactor->self_ = std::move(stream);
  reactor->StartRead(&reactor->request_);
  return reactor;
}

void OipStream::OnDone() {
  // May be the last reference: nothing of this object is touched after it.
  const std::shared_ptr<OipStream> self = std::move(self_);
}

void OipStream::Answer(std::unique_ptr<Response> response) {
  const Response* write = nullptr;
  bool read = false;
  {
    absl::MutexLock lock(&mu_);
    --unanswered_;
    if (!broken_) {
      answers_.push_back(std::move(response));
      if (!writing_) write = answers_.front().get();
      writing_ = true;
    }
    read = paused_;
    paused_ = false;
  }
  if (write != nullptr) StartWrite(write);
  if (read) StartRead(&request_);
  FinishIfDone();
}

void OipStream::OnReadDone(bool ok) {
  if (!ok) {
    {
      absl::MutexLock lock(&mu_);
      half_closed_ = true;
    }
    FinishIfDone();
    return;
  }
  {
    absl::MutexLock lock(&mu_);
    ++unanswered_;
  }
  submit_(request_, self_);
  request_.Clear();
  {
    absl::MutexLock lock(&mu_);
    paused_ = unanswered_ >= kMaxUnanswered;
    if (paused_) return;
  }
  StartRead(&request_);
}

void OipStream::OnWriteDone(bool ok) {
  const Response* next = nullptr;
  {
    absl::MutexLock lock(&mu_);
    answers_.pop_front();
    if (!ok) {
      broken_ = true;
      answers_.clear();
    }
    if (!answers_.empty()) next = answers_.front().get();
    writing_ = next != nullptr;
  }
  if (next != nullptr) StartWrite(next);
  FinishIfDone();
}

void OipStream::FinishIfDone() {
  {
    absl::MutexLock lock(&mu_);
    if (!half_closed_ || unanswered_ > 0 || writing_ || finished_) return;
    finished_ = true;
  }
  Finish(grpc::Status::OK);
}

}  // namespace esper::server
