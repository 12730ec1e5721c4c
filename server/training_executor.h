#ifndef ESPER_SERVER_TRAINING_EXECUTOR_H_
#define ESPER_SERVER_TRAINING_EXECUTOR_H_

#include <deque>
#include <functional>
#include <thread>  // NOLINT: joined in the destructor.

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace esper::server {

// Runs all training work on one thread, in the order it came, so that the
// learner needs no lock and an optimiser step is a barrier by construction.
// The thread has a lower scheduling priority than those that serve actions.
//
// Thread safety: any thread may call `Submit`.
class TrainingExecutor {
 public:
  // At most `max_queued` (> 0) pieces of work wait.
  explicit TrainingExecutor(int max_queued);

  // Runs what is queued, then joins.
  ~TrainingExecutor();

  TrainingExecutor(const TrainingExecutor&) = delete;
  TrainingExecutor& operator=(const TrainingExecutor&) = delete;

  // Queues `work`, which must not throw. UNAVAILABLE with QUEUE_FULL, and
  // `work` is not run, if too much waits already; with DRAINING after `Drain`.
  absl::Status Submit(std::function<void()> work) ABSL_LOCKS_EXCLUDED(mu_);

  // Queues work that frees resources; never refused.
  void SubmitCleanup(std::function<void()> work) ABSL_LOCKS_EXCLUDED(mu_);

  // Refuses new work, and returns when what was accepted has run.
  void Drain() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Run();

  const int max_queued_;

  absl::Mutex mu_;
  std::deque<std::function<void()>> queue_ ABSL_GUARDED_BY(mu_);
  bool running_ ABSL_GUARDED_BY(mu_) = false;  // Work is executing.
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_TRAINING_EXECUTOR_H_
