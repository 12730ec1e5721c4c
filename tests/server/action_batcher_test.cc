#include "server/action_batcher.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::server {
namespace {

using ::esper::testing::Refused;

// What became of a call.
struct Fate {
  absl::Notification finished;
  absl::Status status;
  std::atomic<bool> abandoned{false};
  std::atomic<int> times_run{0};
};

class FakeCall : public QueuedCall {
 public:
  FakeCall(int rows, Fate* fate) : rows_(rows), fate_(fate) {}
  int rows() const override { return rows_; }
  absl::Status Abandoned() const override {
    return fate_->abandoned ? absl::CancelledError("gone") : absl::OkStatus();
  }
  void Finish(const absl::Status& status) override {
    fate_->status = status;
    fate_->finished.Notify();  // Twice would abort.
  }
  Fate* fate() const { return fate_; }

 private:
  const int rows_;
  Fate* const fate_;
};

// Records its batches; the first one waits for `Open`.
class FakePolicy {
 public:
  ActionBatcher::RunBatch AsRunBatch() {
    return [this](ActionBatcher::Calls calls) {
      if (!started_.HasBeenNotified()) {
        started_.Notify();
        open_.WaitForNotification();
      }
      absl::MutexLock lock(&mu_);
      std::vector<int> rows;
      for (auto& call : calls) {
        rows.push_back(call->rows());
        ++static_cast<FakeCall*>(call.get())->fate()->times_run;
        call->Finish(absl::OkStatus());
      }
      batches_.push_back(rows);
      return ActionBatcher::Calls();
    };
  }
  void AwaitStart() { started_.WaitForNotification(); }
  void Open() { open_.Notify(); }
  std::vector<std::vector<int>> batches() {
    absl::MutexLock lock(&mu_);
    return batches_;
  }

 private:
  absl::Notification started_, open_;
  absl::Mutex mu_;
  std::vector<std::vector<int>> batches_;
};

ActionBatcher::Options Options(int max_rows, int max_queued) {
  ActionBatcher::Options options;
  options.max_batch_rows = max_rows;
  options.max_queued_calls = max_queued;
  return options;
}

TEST(ActionBatcherTest, TakesWhatWaitsInOrderUpToTheMaximum) {
  FakePolicy policy;
  Fate fates[6];
  {
    ActionBatcher batcher(Options(8, 100), policy.AsRunBatch());
    batcher.Enqueue(std::make_unique<FakeCall>(1, &fates[0]));
    policy.AwaitStart();
    const int rows[] = {3, 4, 2, 20, 1};
    for (int i = 0; i < 5; ++i) {
      batcher.Enqueue(std::make_unique<FakeCall>(rows[i], &fates[i + 1]));
    }
    EXPECT_EQ(batcher.queued(), 5);
    policy.Open();
  }
  // 3 + 4 + 2 > 8; 20 alone is more than the maximum and runs by itself.
  const std::vector<std::vector<int>> expected = {{1}, {3, 4}, {2}, {20}, {1}};
  EXPECT_EQ(policy.batches(), expected);
  for (Fate& fate : fates) EXPECT_OK(fate.status);
}

TEST(ActionBatcherTest, RefusesCallsWhenTheQueueIsFull) {
  FakePolicy policy;
  Fate fates[4];
  ActionBatcher batcher(Options(8, 2), policy.AsRunBatch());
  batcher.Enqueue(std::make_unique<FakeCall>(1, &fates[0]));
  policy.AwaitStart();
  for (int i = 1; i < 4; ++i) {
    batcher.Enqueue(std::make_unique<FakeCall>(1, &fates[i]));
  }
  ASSERT_TRUE(fates[3].finished.HasBeenNotified());
  EXPECT_THAT(fates[3].status,
              Refused(absl::StatusCode::kUnavailable, "QUEUE_FULL"));
  EXPECT_FALSE(fates[2].finished.HasBeenNotified());
  policy.Open();
  fates[2].finished.WaitForNotification();
  EXPECT_OK(fates[2].status);
}

TEST(ActionBatcherTest, AnAbandonedCallNeverTakesARow) {
  FakePolicy policy;
  Fate fates[4];
  {
    ActionBatcher batcher(Options(2, 100), policy.AsRunBatch());
    batcher.Enqueue(std::make_unique<FakeCall>(1, &fates[0]));
    policy.AwaitStart();
    for (int i = 1; i < 4; ++i) {
      batcher.Enqueue(std::make_unique<FakeCall>(1, &fates[i]));
    }
    fates[2].abandoned = true;
    policy.Open();
  }
  const std::vector<std::vector<int>> expected = {{1}, {1, 1}};
  EXPECT_EQ(policy.batches(), expected);
  EXPECT_EQ(fates[2].status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(fates[2].times_run, 0);
}

TEST(ActionBatcherTest, DrainFinishesWhatWasAcceptedAndRefusesTheRest) {
  FakePolicy policy;
  Fate fates[3];
  ActionBatcher batcher(Options(8, 100), policy.AsRunBatch());
  batcher.Enqueue(std::make_unique<FakeCall>(1, &fates[0]));
  policy.AwaitStart();
  batcher.Enqueue(std::make_unique<FakeCall>(1, &fates[1]));
  std::thread drain([&] { batcher.Drain(); });
  // Drain refuses from the moment it has begun; before that calls are taken,
  // or refused because so many wait.
  std::vector<std::unique_ptr<Fate>> tries;
  const auto draining = Refused(absl::StatusCode::kUnavailable, "DRAINING");
  do {
    tries.push_back(std::make_unique<Fate>());
    batcher.Enqueue(std::make_unique<FakeCall>(1, tries.back().get()));
  } while (!tries.back()->finished.HasBeenNotified() ||
           !::testing::Value(tries.back()->status, draining));
  EXPECT_FALSE(fates[1].finished.HasBeenNotified());
  policy.Open();
  drain.join();
  EXPECT_OK(fates[0].status);
  EXPECT_OK(fates[1].status);
  EXPECT_EQ(batcher.queued(), 0);
}

TEST(ActionBatcherTest, ADeferredCallRunsOnceTheHolderHasEnded) {
  // All calls need the same thing; whoever runs must be alone with it, on
  // whichever worker.
  std::atomic<int> holders{0};
  std::atomic<int> inside{0};
  std::atomic<int> clashes{0};
  auto run = [&](ActionBatcher::Calls calls) {
    ActionBatcher::Calls deferred, taken;
    for (auto& call : calls) {
      int free = 0;
      if (holders.compare_exchange_strong(free, 1)) {
        taken.push_back(std::move(call));
      } else {
        deferred.push_back(std::move(call));
      }
    }
    for (auto& call : taken) {
      if (++inside > 1) ++clashes;
      ++static_cast<FakeCall*>(call.get())->fate()->times_run;
      --inside;
      holders = 0;
      call->Finish(absl::OkStatus());
    }
    return deferred;
  };
  constexpr int kCalls = 200;
  std::vector<Fate> fates(kCalls);
  {
    ActionBatcher::Options options = Options(4, kCalls);
    options.workers = 3;
    ActionBatcher batcher(options, run);
    for (Fate& fate : fates) {
      batcher.Enqueue(std::make_unique<FakeCall>(1, &fate));
    }
    batcher.Drain();
  }
  for (Fate& fate : fates) {
    EXPECT_TRUE(fate.finished.HasBeenNotified());
    EXPECT_EQ(fate.times_run, 1);
  }
  EXPECT_EQ(clashes, 0);
}

}  // namespace
}  // namespace esper::server
