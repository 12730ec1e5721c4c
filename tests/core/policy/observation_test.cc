#include "core/policy/observation.h"

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "tests/testing/environment_golden.h"
#include "tests/testing/status_matchers.h"

namespace esper::policy {
namespace {

using ::esper::testing::Refused;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

// A valid input that tests spoil in one place.
struct Input {
  ObservationOptions options;
  HostSignals signals;
  SlotObservations slots;
  ObservationTracking tracking;

  Input() {
    options.slot_ids = {"r0c0", "r0c1", "r0c2"};
    options.max_epochs = 50;
    signals.epoch = 10;
    signals.val_loss = 1.5;
    signals.val_accuracy = 40;
    signals.loss_history = {2.0, 1.5};
    signals.accuracy_history = {30, 40};
    SlotObservation& slot = slots["r0c1"];
    slot.stage = kStageBlending;
    slot.blueprint_index = 1;
    slot.contribution = 2.5;
    slot.gradient_norm = 1.0;
    slot.gradient_health = 0.9;
  }

  absl::StatusOr<Observation> Build() const {
    return BuildObservation(options, signals, slots, tracking);
  }
  // Feature `k` of the occupied slot.
  float SlotFeature(int k) const {
    const auto observation = Build();
    EXPECT_OK(observation);
    return observation->features.at(kObservationBaseWidth +
                                    kObservationSlotWidth + k);
  }
};

TEST(BuildObservationTest, AgreesWithReferenceVectors) {
  testing::GoldenReport report;
  testing::CheckFeatures(
      testing::GoldenTensors("tests/golden/policy/features.safetensors"),
      &report);
  for (const std::string& failure : report.failures()) {
    ADD_FAILURE() << failure;
  }
  EXPECT_GT(report.passed(), 0);
}

TEST(BuildObservationTest, IsTheSameForFiniteInputWhateverTheOption) {
  Input input;
  const auto rejecting = input.Build();
  input.options.non_finite = ObservationOptions::NonFinite::kClamp;
  const auto clamping = input.Build();
  ASSERT_OK(rejecting);
  ASSERT_OK(clamping);
  EXPECT_EQ(rejecting->features, clamping->features);
}

TEST(BuildObservationTest, LeavesAnEmptySlotAtZero) {
  const Input input;
  const auto observation = input.Build();
  ASSERT_OK(observation);
  ASSERT_EQ(observation->features.size(), 116);
  EXPECT_EQ(observation->blueprint_indices, (std::vector<int64_t>{-1, 1, -1}));
  for (int slot : {0, 2}) {
    for (int k = 0; k < kObservationSlotWidth; ++k) {
      EXPECT_EQ(observation->features[kObservationBaseWidth +
                                      slot * kObservationSlotWidth + k],
                0.0f);
    }
  }
}

TEST(BuildObservationTest, CountsReportsOfSlotsOutsideTheConfiguration) {
  Input input;
  input.slots["r9c9"].stage = kStageTraining;
  const auto observation = input.Build();
  ASSERT_OK(observation);
  EXPECT_FLOAT_EQ(observation->features[13], 1.0f / 3.0f);
  EXPECT_FLOAT_EQ(observation->features[14], 1.0f / 3.0f);
}

TEST(BuildObservationTest, PadsShortHistoriesOnTheLeft) {
  const auto observation = Input().Build();
  ASSERT_OK(observation);
  for (int i : {3, 4, 5, 8, 9, 10}) {
    EXPECT_EQ(observation->features[i], -1.0f);
  }
  EXPECT_FLOAT_EQ(observation->features[7], std::log1p(1.5) / 7);
  EXPECT_FLOAT_EQ(observation->features[12], 0.4f);
}

TEST(BuildObservationTest, RefusesEveryNumberThatIsNotFinite) {
  const std::pair<const char*, std::function<void(Input*, double)>> cases[] = {
      {"val_loss", [](Input* in, double x) { in->signals.val_loss = x; }},
      {"val_accuracy",
       [](Input* in, double x) { in->signals.val_accuracy = x; }},
      {"loss_history",
       [](Input* in, double x) { in->signals.loss_history[0] = x; }},
      {"accuracy_history",
       [](Input* in, double x) { in->signals.accuracy_history[1] = x; }},
      {"r0c1.current_alpha",
       [](Input* in, double x) { in->slots["r0c1"].current_alpha = x; }},
      {"r0c1.contribution",
       [](Input* in, double x) { in->slots["r0c1"].contribution = x; }},
      {"r0c1.contribution_velocity",
       [](Input* in, double x) {
         in->slots["r0c1"].contribution_velocity = x;
       }},
      {"r0c1.alpha_target",
       [](Input* in, double x) { in->slots["r0c1"].alpha_target = x; }},
      {"r0c1.alpha_velocity",
       [](Input* in, double x) { in->slots["r0c1"].alpha_velocity = x; }},
      {"r0c1.interaction_sum",
       [](Input* in, double x) { in->slots["r0c1"].interaction_sum = x; }},
      {"r0c1.gradient_health",
       [](Input* in, double x) { in->slots["r0c1"].gradient_health = x; }},
      {"r0c1.gradient_health_prev",
       [](Input* in, double x) {
         in->tracking.SetGradientHealthPrev("r0c1", x);
       }},
  };
  for (const auto& [name, spoil] : cases) {
    for (double bad : {kNan, kInfinity, -kInfinity}) {
      Input input;
      spoil(&input, bad);
      const auto observation = input.Build();
      EXPECT_THAT(observation, Refused(kInvalid, "NONFINITE_INPUT")) << name;
      if (!observation.ok()) {
        EXPECT_EQ(DetailOf(observation.status())->tensor, name);
      }
    }
  }
}

TEST(BuildObservationTest, CountsAGradientNormThatIsNotFiniteAsZero) {
  for (double norm : {kNan, kInfinity}) {
    Input input;
    input.slots["r0c1"].gradient_norm = norm;
    EXPECT_EQ(input.SlotFeature(23), 0.0f);
  }
}

TEST(BuildObservationTest, ClampsNanToMinusOneOnlyWhenAsked) {
  Input input;
  input.options.non_finite = ObservationOptions::NonFinite::kClamp;
  input.slots["r0c1"].contribution = kNan;
  EXPECT_EQ(input.SlotFeature(12), -1.0f);
  input.slots["r0c1"].gradient_health = kNan;
  EXPECT_THAT(input.Build(), Refused(kInvalid, "NONFINITE_INPUT"));
}

TEST(BuildObservationTest, RefusesNumbersOutsideTheSchema) {
  for (int64_t stage : {-1, 5, 11}) {
    Input input;
    input.slots["r0c1"].stage = stage;
    EXPECT_THAT(input.Build(), Refused(kInvalid, "BAD_STAGE")) << stage;
  }
  for (int64_t blueprint : {-1, 13}) {
    Input input;
    input.slots["r0c1"].blueprint_index = blueprint;
    EXPECT_THAT(input.Build(), Refused(kInvalid, "BAD_BLUEPRINT_INDEX"));
  }
  for (int64_t op : {-1, 6}) {
    Input input;
    input.tracking.SetLastAction(true, op);
    EXPECT_THAT(input.Build(), Refused(kInvalid, "INVALID_ACTION"));
  }
  Input input;
  input.options.slot_ids.clear();
  EXPECT_THAT(input.Build(), Refused(kInvalid, "BAD_SHAPE"));
}

TEST(ObservationTrackingTest, OnlyAMeasurementCreatesFreshness) {
  Input input;
  EXPECT_EQ(input.SlotFeature(29), -1.0f);
  ASSERT_OK(input.tracking.FinishStep(true, Op::kWait, input.slots));
  EXPECT_EQ(input.SlotFeature(29), -1.0f);
  input.tracking.OnContributionMeasured("r0c1");
  EXPECT_EQ(input.SlotFeature(29), 1.0f);
  ASSERT_OK(input.tracking.FinishStep(true, Op::kWait, input.slots));
  EXPECT_FLOAT_EQ(input.SlotFeature(29), 0.995f);
}

TEST(ObservationTrackingTest, InventsFreshnessOnlyInTheUpstreamProfile) {
  ObservationTracking tracking(ObservationTracking::Freshness::kUpstream);
  ASSERT_OK(tracking.FinishStep(true, Op::kWait, Input().slots));
  EXPECT_EQ(tracking.EpochsSinceContribution("r0c1"), 0);
  EXPECT_EQ(tracking.EpochsSinceContribution("r0c0"), std::nullopt);
}

TEST(ObservationTrackingTest, KeepsTheOldHealthWhenNoneWasMeasured) {
  Input input;
  ASSERT_OK(input.tracking.FinishStep(false, Op::kPrune, input.slots));
  input.slots["r0c1"].gradient_health = std::nullopt;
  ASSERT_OK(input.tracking.FinishStep(true, Op::kAdvance, input.slots));
  EXPECT_EQ(input.tracking.GradientHealthPrev("r0c1"), 0.9);
  EXPECT_EQ(input.tracking.last_action_op(), 5);
  EXPECT_TRUE(input.tracking.last_action_success());
}

TEST(ObservationTrackingTest, ChangesNothingWhenAHealthIsNotFinite) {
  Input input;
  input.tracking.OnContributionMeasured("r0c1");
  SlotObservations bad = input.slots;
  bad["r0c1"].gradient_health = kNan;
  EXPECT_THAT(input.tracking.FinishStep(false, Op::kPrune, bad),
              Refused(kInvalid, "NONFINITE_INPUT"));
  EXPECT_EQ(input.tracking.last_action_op(), 0);
  EXPECT_EQ(input.tracking.EpochsSinceContribution("r0c1"), 0);
}

TEST(ObservationTrackingTest, ForgetsASlotAndAnEpisode) {
  Input input;
  input.tracking.OnContributionMeasured("r0c1");
  ASSERT_OK(input.tracking.FinishStep(false, Op::kPrune, input.slots));
  input.tracking.Forget("r0c1");
  EXPECT_EQ(input.SlotFeature(27), -1.0f);
  EXPECT_EQ(input.SlotFeature(29), -1.0f);
  input.tracking.OnContributionMeasured("r0c1");
  input.tracking.StartEpisode();
  EXPECT_EQ(input.tracking.EpochsSinceContribution("r0c1"), std::nullopt);
  EXPECT_TRUE(input.tracking.last_action_success());
}

TEST(ObservationTrackingTest, CountsARollbackAsAFailedWait) {
  ObservationTracking tracking;
  ASSERT_OK(tracking.FinishStep(true, Op::kGerminate, {}));
  tracking.OnRollback();
  EXPECT_FALSE(tracking.last_action_success());
  EXPECT_EQ(tracking.last_action_op(), 0);
}

}  // namespace
}  // namespace esper::policy
