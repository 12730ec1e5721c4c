#include "server/action_batcher.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/refusal.h"

namespace esper::server {

ActionBatcher::ActionBatcher(const Options& options, RunBatch run_batch,
                             Waited waited)
    : options_(options),
      run_batch_(std::move(run_batch)),
      waited_(std::move(waited)) {
  for (int i = 0; i < options_.workers; ++i) {
    workers_.emplace_back([this] { Work(); });
  }
}

ActionBatcher::~ActionBatcher() {
  Drain();
  for (std::thread& worker : workers_) worker.join();
}

void ActionBatcher::Enqueue(std::unique_ptr<QueuedCall> call) {
  absl::Status refused;
  call->enqueued_ = absl::Now();
  {
    absl::MutexLock lock(&mu_);
    if (draining_) {
      refused = Refuse("DRAINING", "", "The server is shutting down.",
                       "Retry on another server.");
    } else if (queue_.size() + aside_.size() >= options_.max_queued_calls) {
      refused = Refuse("QUEUE_FULL", "",
                       absl::StrCat("All ", options_.max_queued_calls,
                                    " places of the queue are taken."),
                       "Retry after a short, growing delay.");
    } else {
      queue_.push_back(std::move(call));
      return;
    }
  }
  call->Finish(refused);
}

void ActionBatcher::Drain() {
  absl::MutexLock lock(&mu_);
  draining_ = true;
  mu_.Await(absl::Condition(this, &ActionBatcher::Idle));
}

int64_t ActionBatcher::queued() const {
  absl::MutexLock lock(&mu_);
  return static_cast<int64_t>(queue_.size() + aside_.size());
}

void ActionBatcher::Work() {
  while (true) {
    Batch batch = NextBatch();
    if (batch.calls.empty() && batch.abandoned.empty()) return;
    for (auto& call : batch.abandoned) call->Finish(call->Abandoned());
    batch.abandoned.clear();
    if (waited_) {
      const absl::Time now = absl::Now();
      for (const auto& call : batch.calls) waited_(now - call->enqueued_);
    }
    const size_t count = batch.calls.size();
    Calls deferred;
    if (count > 0) deferred = run_batch_(std::move(batch.calls));
    const bool ran_some = deferred.size() < count;
    EndBatch(std::move(deferred), ran_some, batch.generation);
  }
}

ActionBatcher::Batch ActionBatcher::NextBatch() {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(this, &ActionBatcher::HasWork));
  Batch batch;
  int rows = 0;
  while (!queue_.empty()) {
    std::unique_ptr<QueuedCall>& call = queue_.front();
    if (!call->Abandoned().ok()) {
      batch.abandoned.push_back(std::move(call));
    } else if (!batch.calls.empty() &&
               rows + call->rows() > options_.max_batch_rows) {
      break;
    } else {
      rows += call->rows();
      batch.calls.push_back(std::move(call));
    }
    queue_.pop_front();
  }
  batch.generation = ended_;
  if (!batch.calls.empty() || !batch.abandoned.empty()) ++running_;
  return batch;
}

void ActionBatcher::EndBatch(Calls deferred, bool ran_some,
                             int64_t generation) {
  absl::MutexLock lock(&mu_);
  --running_;
  const bool others_ended = ended_ != generation;
  if (ran_some) {
    ++ended_;
    PutInFront(std::exchange(aside_, {}));
  }
  if (ran_some || others_ended) {
    PutInFront(std::move(deferred));
  } else {
    for (auto& call : deferred) aside_.push_back(std::move(call));
  }
}

void ActionBatcher::PutInFront(Calls calls) {
  for (auto it = calls.rbegin(); it != calls.rend(); ++it) {
    queue_.push_front(std::move(*it));
  }
}

}  // namespace esper::server
