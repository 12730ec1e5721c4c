#include "core/slot/alpha.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::slot {
namespace {

using ::esper::testing::IsOk;
using ::esper::testing::StatusIs;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

std::vector<double> Ramp(double from, double to, int64_t steps,
                         AlphaCurve curve, double steepness) {
  AlphaState state;
  state.alpha = from;
  AlphaController controller = AlphaController::FromState(state).value();
  EXPECT_OK(controller.Retarget(to, steps, curve, steepness));
  std::vector<double> alphas;
  for (int64_t i = 0; i < steps; ++i) {
    EXPECT_EQ(controller.Step(), i + 1 == steps);
    alphas.push_back(controller.alpha());
  }
  return alphas;
}

void ExpectSequence(const std::vector<double>& actual,
                    const std::vector<double>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    EXPECT_NEAR(actual[i], expected[i], 1e-9) << "step " << i;
  }
}

TEST(AlphaControllerTest, FollowsTheGoldenSequences) {
  ExpectSequence(Ramp(0, 1, 5, AlphaCurve::kSigmoid, 6),
                 {.10432013884, .33908016656, .66091983344, .89567986116, 1});
  ExpectSequence(Ramp(0, 1, 5, AlphaCurve::kSigmoid, 12),
                 {.02424426428, .23014069577, .76985930423, .97575573572, 1});
  ExpectSequence(Ramp(0, 1, 5, AlphaCurve::kCosine, 12),
                 {.09549150281, .34549150281, .65450849719, .90450849719, 1});
  ExpectSequence(Ramp(1, 0, 3, AlphaCurve::kLinear, 12), {2 / 3., 1 / 3., 0});
}

TEST(AlphaControllerTest, IsMonotoneAndLandsExactlyForRandomRamps) {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> unit(0, 1);
  for (int i = 0; i < 2000; ++i) {
    AlphaState state;
    state.alpha = unit(random);
    AlphaController controller = AlphaController::FromState(state).value();
    const double target = unit(random);
    const int64_t steps = 1 + random() % 12;
    const auto curve = static_cast<AlphaCurve>(1 + random() % 3);
    const double steepness = std::pow(10.0, 6 * unit(random) - 2);
    ASSERT_OK(controller.Retarget(target, steps, curve, steepness));
    const double direction = target > state.alpha ? 1 : -1;
    double last = state.alpha;
    for (int64_t step = 1; step <= steps; ++step) {
      EXPECT_THAT(controller.Retarget(0.5, 3),
                  StatusIs(absl::StatusCode::kFailedPrecondition));
      EXPECT_EQ(controller.time_to_target(), steps - step + 1);
      EXPECT_EQ(controller.Step(), step == steps);
      EXPECT_GE((controller.alpha() - last) * direction, 0);
      EXPECT_GE((target - controller.alpha()) * direction, 0);
      // A stored controller goes on as the original does.
      const auto copy = AlphaController::FromState(controller.state());
      ASSERT_OK(copy);
      EXPECT_TRUE(copy->state() == controller.state());
      last = controller.alpha();
    }
    EXPECT_EQ(controller.alpha(), target);
    EXPECT_EQ(controller.mode(), AlphaMode::kHold);
    EXPECT_FALSE(controller.Step());
    EXPECT_EQ(controller.alpha(), target);
  }
}

TEST(AlphaControllerTest, ZeroStepsArriveAtOnce) {
  for (const int64_t steps : {0, -3}) {
    AlphaController controller;
    ASSERT_OK(controller.Retarget(0.7, steps));
    EXPECT_EQ(controller.alpha(), 0.7);
    EXPECT_EQ(controller.mode(), AlphaMode::kHold);
    EXPECT_EQ(controller.time_to_target(), 0);
  }
}

TEST(AlphaControllerTest, ATargetAlreadyReachedLeavesNoRamp) {
  AlphaController controller;
  ASSERT_OK(controller.SetAlpha(0.4));
  ASSERT_OK(controller.Retarget(0.4, 5, AlphaCurve::kCosine));
  EXPECT_EQ(controller.mode(), AlphaMode::kHold);
  EXPECT_EQ(controller.time_to_target(), 0);
  EXPECT_EQ(controller.velocity(), 0);
  EXPECT_EQ(controller.state().curve, AlphaCurve::kCosine);
  EXPECT_FALSE(controller.Step());
}

TEST(AlphaControllerTest, ReportsTheMeanSlope) {
  AlphaController controller;
  ASSERT_OK(controller.SetAlpha(1));
  ASSERT_OK(controller.Retarget(0.5, 4, AlphaCurve::kSigmoid));
  EXPECT_EQ(controller.mode(), AlphaMode::kDown);
  EXPECT_DOUBLE_EQ(controller.velocity(), -0.125);
}

TEST(AlphaControllerTest, RefusesWhatIsNotFiniteAndStaysAsItWas) {
  AlphaController controller;
  ASSERT_OK(controller.Retarget(0.3, 0));
  const AlphaState before = controller.state();
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  for (const double bad : {kNan, kInf, -kInf}) {
    EXPECT_THAT(controller.Retarget(bad, 3), StatusIs(kInvalid));
    EXPECT_THAT(controller.Retarget(0.5, 3, AlphaCurve::kLinear, bad),
                StatusIs(kInvalid));
    EXPECT_THAT(controller.SetAlpha(bad), StatusIs(kInvalid));
    for (double AlphaState::*field :
         {&AlphaState::alpha, &AlphaState::start, &AlphaState::target,
          &AlphaState::steepness}) {
      AlphaState state;
      state.*field = bad;
      EXPECT_THAT(AlphaController::FromState(state), StatusIs(kInvalid));
    }
  }
  EXPECT_TRUE(controller.state() == before);
}

TEST(AlphaControllerTest, ClampsIntoRange) {
  AlphaState state;
  state.alpha = 7.5;
  state.target = -1;
  state.steepness = 0;
  state.steps_total = 4;
  state.steps_done = 9;
  const AlphaState made = AlphaController::FromState(state)->state();
  EXPECT_EQ(made.alpha, 1);
  EXPECT_EQ(made.target, 0);
  EXPECT_EQ(made.steepness, kMinSteepness);
  EXPECT_EQ(made.steps_done, 4);
  AlphaController controller;
  ASSERT_OK(controller.Retarget(9, 2));
  EXPECT_EQ(controller.state().target, 1);
}

TEST(AlphaControllerTest, ResetKeepsTheCurve) {
  AlphaController controller;
  ASSERT_OK(controller.Retarget(1, 4, AlphaCurve::kSigmoid, 24));
  controller.Step();
  controller.Reset();
  AlphaState expected;
  expected.curve = AlphaCurve::kSigmoid;
  expected.steepness = 24;
  EXPECT_TRUE(controller.state() == expected);
}

TEST(CurveProgressTest, StaysFiniteForAnySteepness) {
  for (const double k : {0.1, 1e-300, 1e3, 1e308}) {
    for (double t = -0.5; t <= 1.5; t += 0.125) {
      const double p = CurveProgress(AlphaCurve::kSigmoid, k, t);
      EXPECT_GE(p, 0) << k << " at " << t;
      EXPECT_LE(p, 1) << k << " at " << t;
    }
  }
  EXPECT_EQ(CurveProgress(AlphaCurve::kSigmoid, 0, 0.25), 0.25);
}

TEST(AlphaEnumsTest, RefuseUnknownNumbers) {
  EXPECT_EQ(AlphaModeFromNumber(2).value(), AlphaMode::kDown);
  EXPECT_EQ(AlphaCurveFromNumber(3).value(), AlphaCurve::kSigmoid);
  EXPECT_EQ(AlphaAlgorithmFromNumber(1).value(), AlphaAlgorithm::kAdd);
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(AlphaModeFromNumber(3), StatusIs(kInvalid));
  EXPECT_THAT(AlphaModeFromNumber(-1), StatusIs(kInvalid));
  EXPECT_THAT(AlphaCurveFromNumber(0), StatusIs(kInvalid));
  EXPECT_THAT(AlphaCurveFromNumber(4), StatusIs(kInvalid));
  EXPECT_THAT(AlphaAlgorithmFromNumber(0), StatusIs(kInvalid));
  EXPECT_THAT(AlphaAlgorithmFromNumber(4), StatusIs(kInvalid));
}

}  // namespace
}  // namespace esper::slot
