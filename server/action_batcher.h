#ifndef ESPER_SERVER_ACTION_BATCHER_H_
#define ESPER_SERVER_ACTION_BATCHER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>  // NOLINT: joined in the destructor.
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace esper::server {

// One call that waits for a worker.
class QueuedCall {
 public:
  virtual ~QueuedCall() = default;
  // Rows of a batch that it takes, >= 0.
  virtual int rows() const = 0;
  // CANCELLED or DEADLINE_EXCEEDED once nobody waits for the answer; OK before.
  // Asked under a lock: must return at once.
  virtual absl::Status Abandoned() const = 0;
  // Ends the call. Called exactly once, by whoever holds it last.
  virtual void Finish(const absl::Status& status) = 0;

 private:
  friend class ActionBatcher;
  absl::Time enqueued_;
};

// Gathers calls into batches for the worker threads.
//
// Greedy: a worker that is free takes what waits, whole calls in the order they
// came, up to `max_batch_rows` (a larger call makes a batch of its own). It
// never waits for more. A call that was cancelled, or whose deadline has
// passed, never takes a row.
//
// Thread safety: any thread may call any public method. `RunBatch` runs on the
// workers only, on several at once if there are several, and never while a
// lock is held.
class ActionBatcher {
 public:
  using Calls = std::vector<std::unique_ptr<QueuedCall>>;
  // Runs and finishes calls. Returns those that must wait, unfinished, because
  // a call of this or another batch holds what they need; they come again, in
  // front of the queue, once a batch has ended. Must not throw.
  using RunBatch = std::function<Calls(Calls calls)>;

  // Told how long a call has waited, on the worker that takes it.
  using Waited = std::function<void(absl::Duration)>;

  struct Options {
    int workers = 1;              // Threads, >= 1.
    int max_batch_rows = 256;     // >= 1.
    int max_queued_calls = 1024;  // Waiting for a worker, >= 1.
  };

  // `waited` may be empty.
  ActionBatcher(const Options& options, RunBatch run_batch,
                Waited waited = nullptr);

  // Drains.
  ~ActionBatcher();

  ActionBatcher(const ActionBatcher&) = delete;
  ActionBatcher& operator=(const ActionBatcher&) = delete;

  // Takes a call, which is finished before or after this returns: with
  // UNAVAILABLE and reason QUEUE_FULL or DRAINING if it is not accepted.
  void Enqueue(std::unique_ptr<QueuedCall> call) ABSL_LOCKS_EXCLUDED(mu_);

  // Refuses new calls; returns when those accepted have been finished.
  void Drain() ABSL_LOCKS_EXCLUDED(mu_);

  // Calls that wait.
  int64_t queued() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Work();
  // What a worker takes at a time.
  struct Batch {
    Calls calls;
    Calls abandoned;         // To be finished without running.
    int64_t generation = 0;  // `ended_` when it was taken.
  };
  // Blocks until there is work; an empty batch means stop.
  Batch NextBatch() ABSL_LOCKS_EXCLUDED(mu_);
  // Puts deferred calls back: in the queue if a batch has ended since
  // `generation`, as they may run now; otherwise aside until one does.
  void EndBatch(Calls deferred, bool ran_some, int64_t generation)
      ABSL_LOCKS_EXCLUDED(mu_);
  void PutInFront(Calls calls) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !queue_.empty() || (draining_ && Idle());
  }
  bool Idle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return queue_.empty() && aside_.empty() && running_ == 0;
  }

  const Options options_;
  const RunBatch run_batch_;
  const Waited waited_;

  mutable absl::Mutex mu_;
  std::deque<std::unique_ptr<QueuedCall>> queue_ ABSL_GUARDED_BY(mu_);
  Calls aside_ ABSL_GUARDED_BY(mu_);        // Wait for a batch to end.
  int running_ ABSL_GUARDED_BY(mu_) = 0;    // Batches on workers.
  int64_t ended_ ABSL_GUARDED_BY(mu_) = 0;  // Batches that ran something.
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> workers_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_ACTION_BATCHER_H_
