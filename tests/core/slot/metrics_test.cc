#include "core/slot/metrics.h"

#include <limits>
#include <string>

#include "core/slot/events.h"
#include "core/slot/lifecycle_result.h"
#include "core/slot/telemetry.h"
#include "core/slot/topology.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::slot {
namespace {

using ::esper::testing::IsOk;
using ::esper::testing::Refused;
using ::esper::testing::StatusIs;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(SeedMetricsTest, FollowsAccuracy) {
  SeedMetrics metrics;
  ASSERT_OK(metrics.RecordAccuracy(40));
  ASSERT_OK(metrics.RecordAccuracy(55));
  ASSERT_OK(metrics.RecordAccuracy(52));
  EXPECT_EQ(metrics.epochs_total, 3);
  EXPECT_EQ(metrics.epochs_in_stage, 3);
  EXPECT_EQ(metrics.initial_accuracy, 40);
  EXPECT_EQ(metrics.stage_start_accuracy, 40);
  EXPECT_EQ(metrics.best_accuracy, 55);
  EXPECT_EQ(metrics.total_improvement(), 12);
  EXPECT_EQ(metrics.normalized_total_improvement(), 1);
  EXPECT_EQ(metrics.blending_delta(), 0);
  metrics.blending_started = true;
  metrics.blending_start_accuracy = 54;
  EXPECT_EQ(metrics.blending_delta(), -2);
  metrics.stage_start_accuracy = 55;
  EXPECT_DOUBLE_EQ(metrics.normalized_stage_improvement(), -0.3);
}

TEST(SeedMetricsTest, VelocityStartsWithTheSecondContribution) {
  SeedMetrics metrics;
  ASSERT_OK(metrics.RecordContribution(2));
  EXPECT_EQ(metrics.contribution_velocity, 0);
  ASSERT_OK(metrics.RecordContribution(4));
  EXPECT_DOUBLE_EQ(metrics.contribution_velocity, 0.6);
  ASSERT_OK(metrics.RecordContribution(3));
  EXPECT_DOUBLE_EQ(metrics.contribution_velocity, 0.7 * 0.6 - 0.3);
  EXPECT_EQ(metrics.previous_contribution, 3);
}

TEST(SeedMetricsTest, RefusesWhatIsNotFinite) {
  SeedMetrics metrics;
  EXPECT_THAT(metrics.RecordAccuracy(kNan),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(metrics.RecordContribution(kNan),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(metrics.epochs_total, 0);
  EXPECT_FALSE(metrics.contribution.has_value());
}

TEST(SeedTelemetryTest, FeaturesHaveTheirPlacesAndScales) {
  SeedTelemetry t;
  t.stage = SeedStage::kFossilized;
  t.gradient_norm = 5;
  t.gradient_health = 0.75;
  t.has_vanishing = true;
  t.has_exploding = false;
  t.epochs_in_stage = 25;
  t.accuracy = 62;
  t.accuracy_delta = -4;
  t.alpha.alpha = 0.3;
  t.alpha.target = 0.9;
  t.alpha.mode = AlphaMode::kDown;
  t.alpha.steps_total = 50;
  t.alpha.steps_done = 5;
  t.time_to_target = 10;
  t.alpha_velocity = -2;
  t.algorithm = AlphaAlgorithm::kGate;
  t.epoch = 10;
  const auto f = t.Features();
  for (int i = 0; i < 10; ++i) EXPECT_EQ(f[i], i == 6 ? 1 : 0);
  const double expected[] = {0.5, 0.75, 1,   0,   0.5, 0.62, -0.4, 0.3,
                             0.4, 0.9,  1.0, 1.0, 0.2, 0.4,  -1,   1};
  for (int i = 0; i < 16; ++i) {
    EXPECT_DOUBLE_EQ(f[10 + i], expected[i]) << "feature " << 10 + i;
  }
}

TEST(SeedTelemetryTest, UnmeasuredIsZeroNotHealthy) {
  const auto f = SeedTelemetry().Features();
  for (int i = 10; i < 14; ++i) EXPECT_EQ(f[i], 0);
  EXPECT_EQ(f[1], 1);
}

TEST(CallbackEventSinkTest, SurvivesACallbackThatThrows) {
  int calls = 0;
  CallbackEventSink sink([&](const SlotEvent&) {
    ++calls;
    throw std::runtime_error("observer");
  });
  sink.OnEvent(SlotEvent{});
  CallbackEventSink worse([&](const SlotEvent&) {
    ++calls;
    throw 3;
  });
  worse.OnEvent(SlotEvent{});
  CallbackEventSink(nullptr).OnEvent(SlotEvent{});
  EXPECT_EQ(calls, 2);
}

TEST(LifecycleResultTest, TellsDoneRefusedAndFailedApart) {
  EXPECT_TRUE(LifecycleResult::Done().ok());
  const auto refused = LifecycleResult::Refused(Refusal::kNoSeed, "Empty.");
  EXPECT_FALSE(refused.ok());
  EXPECT_TRUE(refused.refused());
  EXPECT_THAT(refused.status(),
              Refused(absl::StatusCode::kFailedPrecondition, "NO_SEED"));
  const auto failed =
      LifecycleResult::Failed(absl::InvalidArgumentError("Bad."));
  EXPECT_FALSE(failed.ok());
  EXPECT_FALSE(failed.refused());
}

TEST(TopologyTest, KnowsTwoNames) {
  EXPECT_EQ(ParseTopology("cnn").value(), Topology::kCnn);
  EXPECT_EQ(ParseTopology("transformer").value(), Topology::kTransformer);
  for (const char* name : {"", "CNN", "mlp", "cnn "}) {
    EXPECT_THAT(ParseTopology(name),
                StatusIs(absl::StatusCode::kInvalidArgument));
  }
}

}  // namespace
}  // namespace esper::slot
