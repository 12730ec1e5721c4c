#include "client/action_pipeline.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/time/clock.h"
#include "client/policy_messages.h"
#include "client/status.h"

namespace esper::client {

ActionPipeline::ActionPipeline(std::shared_ptr<grpc::Channel> channel,
                               const Options& options)
    : options_(options),
      stub_(v1::PolicyInference::NewStub(std::move(channel))),
      watch_([this] { Watch(); }) {}

ActionPipeline::~ActionPipeline() {
  std::vector<std::shared_ptr<ActionStreamLink>> links;
  std::vector<std::shared_ptr<UnaryCall>> calls;
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  watch_.join();  // Ends what waits for its next attempt.
  {
    absl::MutexLock lock(&mu_);
    for (const auto& [key, link] : links_) links.push_back(link);
    for (const auto& [id, call] : calls_) calls.push_back(call);
  }
  for (const auto& link : links) link->Cancel();
  for (const auto& call : calls) call->context.TryCancel();
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(this, &ActionPipeline::Quiet));
}

void ActionPipeline::GetAction(const std::vector<StepRow>& rows, Done done) {
  auto message = ToRequest(rows, /*return_entropies=*/false);
  if (!message.ok()) {
    done(message.status());
    return;
  }
  auto request = std::make_unique<Request>();
  request->message = *std::move(message);
  request->rows = static_cast<int64_t>(rows.size());
  request->done = std::move(done);
  request->give_up = absl::Now() + options_.retry.give_up_after;
  request->backoff = options_.retry.initial_backoff;
  uint64_t id = 0;
  {
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(this, &ActionPipeline::HasRoom));
    if (!stopping_) {
      id = next_id_++;
      request->due = absl::InfiniteFuture();
      requests_[id] = std::move(request);
    }
  }
  if (id == 0) {
    request->done(absl::CancelledError("The pipeline is shutting down."));
    return;
  }
  StartAttempt(id);
}

std::future<ActionPipeline::Result> ActionPipeline::GetAction(
    const std::vector<StepRow>& rows) {
  auto promise = std::make_shared<std::promise<Result>>();
  std::future<Result> result = promise->get_future();
  GetAction(rows, [promise](Result answer) {
    promise->set_value(std::move(answer));
  });
  return result;
}

void ActionPipeline::Wait() {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(this, &ActionPipeline::Idle));
}

int64_t ActionPipeline::retries() const {
  absl::MutexLock lock(&mu_);
  return retries_;
}

std::shared_ptr<ActionStreamLink> ActionPipeline::LinkLocked() {
  if (link_ != nullptr) return link_;
  ActionStreamLink::Callbacks callbacks;
  callbacks.answered = [this](uint64_t id, Answer answer) {
    EndAttempt(id, std::move(answer));
  };
  callbacks.closed = [this](const ActionStreamLink* link) { LinkClosed(link); };
  link_ = std::make_shared<ActionStreamLink>(stub_.get(), std::move(callbacks));
  links_[link_.get()] = link_;
  return link_;
}

void ActionPipeline::LinkClosed(const ActionStreamLink* link) {
  absl::MutexLock lock(&mu_);
  if (link_.get() == link) link_ = nullptr;
  links_.erase(link);
}

void ActionPipeline::StartAttempt(uint64_t id) {
  Request* request = nullptr;
  std::shared_ptr<ActionStreamLink> link;
  v1::StreamActionsRequest message;
  {
    absl::MutexLock lock(&mu_);
    const auto it = requests_.find(id);
    if (it == requests_.end()) return;
    request = it->second.get();
    request->under_way = true;
    request->due = absl::Now() + options_.retry.attempt_timeout;
    if (++request->attempts > 1) ++retries_;
    changed_ = true;
    if (options_.transport == Transport::kStream) {
      link = LinkLocked();
      message.set_request_id(id);
      *message.mutable_request() = request->message;
    }
  }
  if (link == nullptr) {
    StartUnary(id, request);
    return;
  }
  link->Start();
  if (!link->Send(std::move(message))) {
    EndAttempt(id, absl::UnavailableError("The stream has ended."));
  }
}

void ActionPipeline::StartUnary(uint64_t id, Request* request) {
  auto call = std::make_shared<UnaryCall>();
  call->context.set_deadline(
      std::chrono::system_clock::now() +
      absl::ToChronoMilliseconds(options_.retry.attempt_timeout));
  {
    absl::MutexLock lock(&mu_);
    if (stopping_) call->context.TryCancel();
    calls_[id] = call;
  }
  // The request stays where it is until this attempt has ended.
  stub_->async()->GetAction(&call->context, &request->message, &call->response,
                            [this, id, call](const grpc::Status& status) {
                              const absl::Status result =
                                  FromGrpc(status, call->context);
                              if (result.ok()) {
                                EndAttempt(id, std::move(call->response));
                              } else {
                                EndAttempt(id, result);
                              }
                              absl::MutexLock lock(&mu_);
                              calls_.erase(id);
                            });
}

void ActionPipeline::EndAttempt(uint64_t id, Answer answer) {
  std::unique_ptr<Request> request;
  {
    absl::MutexLock lock(&mu_);
    const auto it = requests_.find(id);
    if (it == requests_.end()) return;  // It was late, and is tried again.
    request = std::move(it->second);
    requests_.erase(it);
    const absl::Duration pause = WithJitter(request->backoff);
    const bool retry = !answer.ok() && IsRetryable(answer.status()) &&
                       !stopping_ && absl::Now() + pause <= request->give_up &&
                       !(options_.retry.stop != nullptr &&
                         options_.retry.stop->HasBeenNotified());
    if (retry) {
      request->under_way = false;
      request->due = absl::Now() + pause;
      request->backoff =
          std::min(request->backoff * 2, options_.retry.max_backoff);
      // Under a new number: an answer to the old attempt may still come.
      requests_[next_id_++] = std::move(request);
      changed_ = true;
      return;
    }
    ++callbacks_;
  }
  if (answer.ok()) {
    request->done(FromResponse(*answer, request->rows));
  } else if (IsRetryable(answer.status())) {
    request->done(
        WithAttempts(answer.status(), "GetAction", request->attempts));
  } else {
    request->done(answer.status());
  }
  absl::MutexLock lock(&mu_);
  --callbacks_;
}

absl::Time ActionPipeline::NextDue() const {
  absl::Time next = absl::InfiniteFuture();
  for (const auto& [id, request] : requests_) {
    next = std::min(next, request->due);
  }
  return next;
}

void ActionPipeline::Watch() {
  while (true) {
    std::vector<uint64_t> start;
    std::vector<uint64_t> end;
    std::shared_ptr<ActionStreamLink> late;
    bool stopping = false;
    {
      absl::MutexLock lock(&mu_);
      mu_.AwaitWithDeadline(absl::Condition(this, &ActionPipeline::Changed),
                            NextDue());
      changed_ = false;
      stopping = stopping_;
      const absl::Time now = absl::Now();
      for (const auto& [id, request] : requests_) {
        if (!request->under_way && stopping) {
          end.push_back(id);
        } else if (request->due > now) {
          continue;
        } else if (!request->under_way) {
          start.push_back(id);
        } else {
          // A unary call ends by its own deadline; a stream that does not
          // answer in time is given up.
          request->due = absl::InfiniteFuture();
          if (link_ != nullptr) late = std::exchange(link_, nullptr);
        }
      }
    }
    for (const uint64_t id : end) {
      EndAttempt(id, absl::CancelledError("The pipeline was shut down."));
    }
    if (stopping) return;
    for (const uint64_t id : start) StartAttempt(id);
    if (late != nullptr) late->Cancel();
  }
}

}  // namespace esper::client
