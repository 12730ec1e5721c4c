#include "core/env/governor.h"

#include <limits>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::env {
namespace {

using ::esper::testing::Refused;

// A governor that has seen `n` healthy losses around 1.
Governor Trained(int n) {
  Governor governor;
  for (int i = 0; i < n; ++i) {
    EXPECT_FALSE(governor.Check(1.0 + 0.01 * (i % 3)).panic);
  }
  return governor;
}

TEST(GovernorTest, PanicsAtOnceOnALossThatIsNotFinite) {
  for (double loss : {std::numeric_limits<double>::quiet_NaN(),
                      std::numeric_limits<double>::infinity()}) {
    Governor governor;
    const GovernorVerdict verdict = governor.Check(loss);
    EXPECT_TRUE(verdict.panic);
    EXPECT_EQ(verdict.reason, PanicReason::kNan);
    EXPECT_EQ(governor.history_size(), 0);
  }
}

TEST(GovernorTest, PanicsOnTheThirdAnomalyInARowAndNotBefore) {
  Governor governor = Trained(12);
  EXPECT_FALSE(governor.Check(13.0).panic);
  EXPECT_FALSE(governor.Check(13.0).panic);
  const GovernorVerdict verdict = governor.Check(13.0);
  EXPECT_TRUE(verdict.panic);
  EXPECT_EQ(verdict.reason, PanicReason::kDivergence);
  EXPECT_EQ(governor.history_size(), 12);
}

TEST(GovernorTest, AHealthyLossEndsTheStreak) {
  Governor governor = Trained(12);
  governor.Check(13.0);
  governor.Check(13.0);
  EXPECT_EQ(governor.Check(1.0).anomalies_in_a_row, 0);
  EXPECT_FALSE(governor.Check(13.0).panic);
}

TEST(GovernorTest, NeedsTenSamplesBeforeItJudges) {
  EXPECT_FALSE(Trained(9).Check(2.302585).panic);
  const GovernorVerdict verdict = Trained(10).Check(2.302585);
  EXPECT_TRUE(verdict.panic);
  EXPECT_EQ(verdict.reason, PanicReason::kLobotomy);
}

TEST(GovernorTest, KeepsTheHistoryOverARollback) {
  Governor governor = Trained(12);
  for (int i = 0; i < 3; ++i) governor.Check(13.0);
  governor.OnRollback();
  EXPECT_EQ(governor.history_size(), 12);
  EXPECT_FALSE(governor.Check(13.0).panic);
  governor.Reset();
  EXPECT_EQ(governor.history_size(), 0);
}

TEST(GovernorTest, KeepsTwentyLosses) {
  EXPECT_EQ(Trained(50).history_size(), 20);
}

TEST(GovernorTest, AsksForASnapshotEveryFifthEpochAndOnRequest) {
  Governor governor;
  EXPECT_FALSE(governor.TakeSnapshotDue(4));
  EXPECT_TRUE(governor.TakeSnapshotDue(5));
  governor.RequestSnapshot();
  EXPECT_TRUE(governor.TakeSnapshotDue(6));
  EXPECT_FALSE(governor.TakeSnapshotDue(7));
}

TEST(GovernorTest, RefusesAHistoryThatIsTooShort) {
  Governor::Options options;
  options.history_window = 9;
  EXPECT_THAT(Governor::Create(options),
              Refused(absl::StatusCode::kInvalidArgument, "MALFORMED_REQUEST"));
  options.history_window = 10;
  EXPECT_OK(Governor::Create(options));
}

}  // namespace
}  // namespace esper::env
