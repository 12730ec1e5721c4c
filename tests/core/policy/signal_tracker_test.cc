#include "core/policy/signal_tracker.h"

#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/testing/environment_golden.h"
#include "tests/testing/status_matchers.h"

namespace esper::policy {
namespace {

using ::esper::testing::Refused;

SignalTracker::Epoch EpochOf(int64_t epoch, double loss, double accuracy) {
  SignalTracker::Epoch result;
  result.epoch = epoch;
  result.val_loss = loss;
  result.val_accuracy = accuracy;
  return result;
}

TEST(SignalTrackerTest, AgreesWithReferenceVectors) {
  testing::GoldenReport report;
  testing::CheckTracker(
      testing::GoldenTensors("tests/golden/policy/tracker.safetensors"),
      &report);
  for (const std::string& failure : report.failures()) {
    ADD_FAILURE() << failure;
  }
  EXPECT_GT(report.passed(), 0);
}

TEST(SignalTrackerTest, SaysWhetherThereIsAPreviousEpoch) {
  SignalTracker tracker;
  const auto first = tracker.Update(EpochOf(1, 2.0, 30));
  EXPECT_FALSE(first->has_previous);
  EXPECT_TRUE(std::isinf(first->loss_delta));
  const auto second = tracker.Update(EpochOf(2, 1.5, 35));
  EXPECT_TRUE(second->has_previous);
  EXPECT_DOUBLE_EQ(second->loss_delta, 0.5);
}

TEST(SignalTrackerTest, PeekChangesNothing) {
  SignalTracker peeked;
  SignalTracker plain;
  for (int epoch = 1; epoch <= 12; ++epoch) {
    const auto input = EpochOf(epoch, 2.0 / epoch, 5.0 * epoch);
    ASSERT_OK(peeked.Peek(input));
    const auto a = peeked.Update(input);
    ASSERT_OK(peeked.Peek(EpochOf(epoch, 99, 99)));
    const auto b = plain.Update(input);
    EXPECT_EQ(a->loss_delta, b->loss_delta);
    EXPECT_EQ(a->plateau_epochs, b->plateau_epochs);
    EXPECT_EQ(a->best_val_accuracy, b->best_val_accuracy);
    EXPECT_EQ(a->loss_history, b->loss_history);
  }
}

TEST(SignalTrackerTest, StabilisesOnceAndStaysSo) {
  std::vector<int64_t> events;
  SignalTracker::Options options;
  options.on_stabilized = [&events](int64_t epoch, int64_t) {
    events.push_back(epoch);
  };
  auto tracker = SignalTracker::Create(options);
  ASSERT_OK(tracker);
  for (int epoch = 1; epoch <= 4; ++epoch) {
    ASSERT_OK(tracker->Update(EpochOf(epoch, 1.0, 50)));
  }
  EXPECT_TRUE(tracker->Update(EpochOf(5, 9.0, 50))->host_stabilized);
  EXPECT_EQ(events, std::vector<int64_t>{4});
  tracker->Reset();
  EXPECT_FALSE(tracker->Update(EpochOf(1, 1.0, 50))->host_stabilized);
}

TEST(SignalTrackerTest, RefusesTwoSeedsOfOneNameAndKeepsItsState) {
  SignalTracker tracker;
  ASSERT_OK(tracker.Update(EpochOf(1, 2.0, 30)));
  SignalTracker::Epoch epoch = EpochOf(2, 1.0, 40);
  epoch.seeds.resize(2);
  EXPECT_THAT(tracker.Update(epoch),
              Refused(absl::StatusCode::kInvalidArgument, "DUPLICATE_SEED_ID"));
  EXPECT_DOUBLE_EQ(tracker.Peek(EpochOf(2, 2.0, 30))->loss_delta, 0.0);
}

TEST(SignalTrackerTest, StableAccuracyIsTheMinimumOfWhatThereIs) {
  SignalTracker tracker;
  EXPECT_THAT(tracker.StableValAccuracy(3),
              Refused(absl::StatusCode::kFailedPrecondition, "NO_HISTORY"));
  for (double accuracy : {50.0, 20.0, 40.0, 30.0, 60.0}) {
    ASSERT_OK(tracker.Update(EpochOf(1, 1.0, accuracy)));
  }
  EXPECT_DOUBLE_EQ(*tracker.StableValAccuracy(3), 30.0);
  EXPECT_DOUBLE_EQ(*tracker.StableValAccuracy(99), 20.0);
  EXPECT_THAT(tracker.StableValAccuracy(0),
              Refused(absl::StatusCode::kInvalidArgument, "MALFORMED_REQUEST"));
}

TEST(SignalTrackerTest, WarnsOfAccuraciesThatAreNoPercentages) {
  std::vector<std::string> warnings;
  SignalTracker::Options options;
  options.on_warning = [&warnings](const std::string& text) {
    warnings.push_back(text);
  };
  auto tracker = SignalTracker::Create(options);
  ASSERT_OK(tracker->Update(EpochOf(0, 1.0, 0.5)));
  ASSERT_OK(tracker->Update(EpochOf(1, 1.0, 50)));
  EXPECT_TRUE(warnings.empty());
  ASSERT_OK(tracker->Update(EpochOf(2, 1.0, 0.5)));
  ASSERT_OK(tracker->Update(EpochOf(3, 1.0, 101)));
  EXPECT_EQ(warnings.size(), 2);
}

TEST(SignalTrackerTest, RefusesAnEmptyWindow) {
  SignalTracker::Options options;
  options.history_window = 0;
  EXPECT_THAT(SignalTracker::Create(options),
              Refused(absl::StatusCode::kInvalidArgument, "MALFORMED_REQUEST"));
}

}  // namespace
}  // namespace esper::policy
