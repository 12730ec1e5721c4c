#include "core/slot/stage.h"

#include <set>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::slot {
namespace {

using ::esper::testing::StatusIs;
using S = SeedStage;

const std::vector<S>& AllStages() {
  static const auto& stages = *new std::vector<S>{
      S::kUnknown,   S::kDormant,  S::kGerminated, S::kTraining,
      S::kBlending,  S::kHolding,  S::kFossilized, S::kPruned,
      S::kEmbargoed, S::kResetting};
  return stages;
}

const std::set<std::pair<S, S>>& LegalPairs() {
  static const auto& pairs = *new std::set<std::pair<S, S>>{
      {S::kUnknown, S::kDormant},     {S::kDormant, S::kGerminated},
      {S::kGerminated, S::kTraining}, {S::kGerminated, S::kPruned},
      {S::kTraining, S::kBlending},   {S::kTraining, S::kPruned},
      {S::kBlending, S::kHolding},    {S::kBlending, S::kPruned},
      {S::kHolding, S::kFossilized},  {S::kHolding, S::kBlending},
      {S::kHolding, S::kPruned},      {S::kPruned, S::kEmbargoed},
      {S::kEmbargoed, S::kResetting}, {S::kResetting, S::kDormant}};
  return pairs;
}

TEST(StageTest, NumbersAreWireContracts) {
  const std::vector<int> numbers = {0, 1, 2, 3, 4, 6, 7, 8, 9, 10};
  for (int i = 0; i < kNumStages; ++i) {
    EXPECT_EQ(static_cast<int>(AllStages()[i]), numbers[i]);
    EXPECT_EQ(StageOneHotIndex(AllStages()[i]), i);
    EXPECT_EQ(StageFromNumber(numbers[i]).value(), AllStages()[i]);
  }
}

TEST(StageTest, RefusesOtherNumbersAndNamesTheRetiredOne) {
  for (const int64_t number : {int64_t{-1}, int64_t{11}, int64_t{1} << 40}) {
    EXPECT_THAT(StageFromNumber(number),
                StatusIs(absl::StatusCode::kInvalidArgument));
  }
  const auto retired = StageFromNumber(5);
  EXPECT_THAT(retired, StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_NE(retired.status().message().find("retired"), std::string::npos);
}

TEST(StageMachineTest, AllowsExactlyTheLegalPairs) {
  const absl::Time start = absl::UnixEpoch();
  const absl::Time later = start + absl::Minutes(3);
  int legal = 0;
  for (const S from : AllStages()) {
    for (const S to : AllStages()) {
      const bool expected = LegalPairs().count({from, to}) > 0;
      legal += expected;
      EXPECT_EQ(IsLegalTransition(from, to), expected)
          << StageName(from) << " -> " << StageName(to);
      StageMachine machine(from, start);
      EXPECT_EQ(machine.Transition(to, later, 4), expected);
      if (expected) {
        EXPECT_EQ(machine.stage(), to);
        EXPECT_EQ(machine.previous(), from);
        EXPECT_EQ(machine.previous_epochs(), 4);
        EXPECT_EQ(machine.entered_at(), later);
        ASSERT_EQ(machine.history().size(), 1);
        EXPECT_EQ(machine.history().front(), StageMachine::Entry(to, later));
      } else {
        EXPECT_EQ(machine.stage(), from);
        EXPECT_EQ(machine.previous(), S::kUnknown);
        EXPECT_EQ(machine.entered_at(), start);
        EXPECT_TRUE(machine.history().empty());
      }
    }
  }
  EXPECT_EQ(legal, 14);
}

TEST(StageMachineTest, ClassifiesStages) {
  const std::set<S> active = {S::kTraining, S::kBlending, S::kHolding,
                              S::kFossilized};
  const std::set<S> failure = {S::kPruned, S::kEmbargoed, S::kResetting};
  for (const S stage : AllStages()) {
    EXPECT_EQ(IsActiveStage(stage), active.count(stage) > 0);
    EXPECT_EQ(IsFailureStage(stage), failure.count(stage) > 0);
    EXPECT_EQ(IsTerminalStage(stage), stage == S::kFossilized);
  }
}

TEST(StageMachineTest, AdvancesToTheFirstSuccessorThatIsNoFailure) {
  EXPECT_EQ(DefaultNextStage(S::kUnknown), S::kDormant);
  EXPECT_EQ(DefaultNextStage(S::kDormant), S::kGerminated);
  EXPECT_EQ(DefaultNextStage(S::kGerminated), S::kTraining);
  EXPECT_EQ(DefaultNextStage(S::kTraining), S::kBlending);
  EXPECT_EQ(DefaultNextStage(S::kBlending), S::kHolding);
  EXPECT_EQ(DefaultNextStage(S::kHolding), S::kFossilized);
  EXPECT_EQ(DefaultNextStage(S::kFossilized), std::nullopt);
  EXPECT_EQ(DefaultNextStage(S::kPruned), std::nullopt);
  EXPECT_EQ(DefaultNextStage(S::kEmbargoed), std::nullopt);
  EXPECT_EQ(DefaultNextStage(S::kResetting), S::kDormant);
}

TEST(StageMachineTest, HistoryKeepsTheLastHundred) {
  StageMachine machine(S::kBlending, absl::UnixEpoch());
  for (int i = 1; i <= 101; ++i) {
    const S to = i % 2 == 1 ? S::kHolding : S::kBlending;
    ASSERT_TRUE(
        machine.Transition(to, absl::UnixEpoch() + absl::Seconds(i), 1));
  }
  ASSERT_EQ(machine.history().size(), 100);
  EXPECT_EQ(
      machine.history().front(),
      StageMachine::Entry(S::kBlending, absl::UnixEpoch() + absl::Seconds(2)));
  EXPECT_EQ(
      machine.history().back(),
      StageMachine::Entry(S::kHolding, absl::UnixEpoch() + absl::Seconds(101)));
}

}  // namespace
}  // namespace esper::slot
