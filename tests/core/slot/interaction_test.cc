#include "core/slot/interaction.h"

#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::slot {
namespace {

using ::esper::testing::StatusIs;
using ::testing::ElementsAre;
using R = InteractionRegime;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(InteractionTest, RegimesFollowTheThresholds) {
  const struct {
    double value, derivative;
    R regime;
  } rows[] = {
      {0.51, 0, R::kSynergy},
      {0.5, 0, R::kIndependent},
      {0, 5, R::kIndependent},
      {-0.5, 5, R::kIndependent},
      {-0.51, 0, R::kInterference},
      {-0.51, 0.001, R::kInterference},
      {-0.51, 0.0011, R::kRecovering},
      {-9, -1, R::kInterference},
      {9, -1, R::kSynergy},
  };
  for (const auto& row : rows) {
    const auto regime = ClassifyInteraction(row.value, row.derivative);
    ASSERT_OK(regime);
    EXPECT_EQ(*regime, row.regime) << row.value << " " << row.derivative
                                   << " is " << InteractionRegimeName(*regime);
  }
  for (const double bad : {std::nan(""), HUGE_VAL}) {
    EXPECT_THAT(ClassifyInteraction(bad, 0), StatusIs(kInvalid));
    EXPECT_THAT(ClassifyInteraction(0, bad), StatusIs(kInvalid));
  }
  EXPECT_STREQ(InteractionRegimeName(R::kRecovering), "RECOVERING");
}

TEST(InteractionTest, MainEffectsAreDifferencesOfMeans) {
  // f = 10 + 4 a - 2 b + 6 a b over its four sets.
  const auto effects = MainEffects(2, {3, 0, 1, 2}, {18, 10, 14, 8});
  ASSERT_OK(effects);
  EXPECT_THAT(*effects, ElementsAre(7.0, 1.0));
}

TEST(InteractionTest, MainEffectsThatWereNotMeasuredAreAbsent) {
  const auto effects = MainEffects(2, {1, 0}, {3, 1});
  ASSERT_OK(effects);
  EXPECT_THAT(*effects, ElementsAre(2.0, std::nullopt));
  EXPECT_THAT(MainEffects(1, {}, {}).value(), ElementsAre(std::nullopt));
  EXPECT_THAT(MainEffects(64, {}, {}), StatusIs(kInvalid));
  EXPECT_THAT(MainEffects(1, {1}, {}), StatusIs(kInvalid));
  EXPECT_THAT(MainEffects(1, {1}, {std::nan("")}), StatusIs(kInvalid));
}

}  // namespace
}  // namespace esper::slot
