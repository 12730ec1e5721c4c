#include "server/training_executor.h"

#include <atomic>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::server {
namespace {

using ::esper::testing::Refused;

TEST(TrainingExecutorTest, RunsWorkInOrderOnOneThread) {
  std::vector<int> order;
  {
    TrainingExecutor executor(/*max_queued=*/100);
    for (int i = 0; i < 50; ++i) {
      ASSERT_OK(executor.Submit([&order, i] { order.push_back(i); }));
    }
  }
  ASSERT_EQ(order.size(), 50);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(order[i], i);
}

TEST(TrainingExecutorTest, RefusesWorkBeyondItsBudget) {
  absl::Notification started, go;
  std::atomic<int> ran{0};
  TrainingExecutor executor(/*max_queued=*/1);
  ASSERT_OK(executor.Submit([&] {
    started.Notify();
    go.WaitForNotification();
  }));
  started.WaitForNotification();
  ASSERT_OK(executor.Submit([&] { ++ran; }));
  EXPECT_THAT(executor.Submit([&] { ++ran; }),
              Refused(absl::StatusCode::kUnavailable, "QUEUE_FULL"));
  executor.SubmitCleanup([&] { ++ran; });
  go.Notify();
  executor.Drain();
  EXPECT_EQ(ran, 2);
}

TEST(TrainingExecutorTest, DrainsWhatItAcceptedAndRefusesTheRest) {
  std::atomic<int> ran{0};
  TrainingExecutor executor(/*max_queued=*/10);
  ASSERT_OK(executor.Submit([&] { ++ran; }));
  executor.Drain();
  EXPECT_EQ(ran, 1);
  EXPECT_THAT(executor.Submit([&] { ++ran; }),
              Refused(absl::StatusCode::kUnavailable, "DRAINING"));
}

}  // namespace
}  // namespace esper::server
