#include "server/training_executor.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

#include "server/refusal.h"
#include "spdlog/spdlog.h"

namespace esper::server {
namespace {

// Nice value of the training thread: actions have a latency target, gradients
// take what is left.
constexpr int kTrainingNice = 10;

absl::Status Unavailable(const std::string& reason,
                         const std::string& message) {
  return Refuse(reason, "", message, "Try again later; nothing was done.");
}

}  // namespace

TrainingExecutor::TrainingExecutor(int max_queued)
    : max_queued_(max_queued), thread_([this] { Run(); }) {}

TrainingExecutor::~TrainingExecutor() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  thread_.join();
}

absl::Status TrainingExecutor::Submit(std::function<void()> work) {
  absl::MutexLock lock(&mu_);
  if (draining_ || stopping_) {
    return Unavailable("DRAINING", "The server is shutting down.");
  }
  if (static_cast<int>(queue_.size()) >= max_queued_) {
    return Unavailable("QUEUE_FULL", "The queue of training calls is full.");
  }
  queue_.push_back(std::move(work));
  return absl::OkStatus();
}

void TrainingExecutor::SubmitCleanup(std::function<void()> work) {
  absl::MutexLock lock(&mu_);
  queue_.push_back(std::move(work));
}

void TrainingExecutor::Drain() {
  absl::MutexLock lock(&mu_);
  draining_ = true;
  auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return queue_.empty() && !running_;
  };
  mu_.Await(absl::Condition(&idle));
}

void TrainingExecutor::Run() {
  if (setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)),
                  kTrainingNice) != 0) {
    spdlog::warn("training thread keeps the default priority");
  }
  while (true) {
    std::function<void()> work;
    {
      absl::MutexLock lock(&mu_);
      auto due = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return stopping_ || !queue_.empty();
      };
      mu_.Await(absl::Condition(&due));
      if (queue_.empty()) return;
      work = std::move(queue_.front());
      queue_.pop_front();
      running_ = true;
    }
    work();
    work = nullptr;  // Frees what it captured before others see it idle.
    absl::MutexLock lock(&mu_);
    running_ = false;
  }
}

}  // namespace esper::server
