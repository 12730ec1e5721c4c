#include "core/policy/actions.h"

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::policy {
namespace {

using ::esper::testing::Refused;

TEST(FactoredActionTest, SurvivesTheWayToIntegersAndBack) {
  const std::array<int64_t, kNumActionHeads> indices = {1, 12, 3, 0,
                                                        1, 3,  4, 5};
  const auto action = FactoredAction::FromIndices(indices, /*num_slots=*/2);
  ASSERT_OK(action);
  EXPECT_EQ(action->op, Op::kAdvance);
  EXPECT_EQ(action->blueprint, 12);
  EXPECT_EQ(action->ToIndices(), indices);
}

TEST(FactoredActionTest, RefusesAnIntegerOutsideItsHeadAndNamesTheHead) {
  for (int h = 0; h < kNumActionHeads; ++h) {
    for (int64_t bad :
         {int64_t{-1}, int64_t{HeadSize(static_cast<ActionHead>(h), 3)}}) {
      std::array<int64_t, kNumActionHeads> indices = {};
      indices[h] = bad;
      const auto action = FactoredAction::FromIndices(indices, 3);
      EXPECT_THAT(action, Refused(absl::StatusCode::kInvalidArgument,
                                  "INVALID_ACTION"));
      EXPECT_EQ(DetailOf(action.status())->field,
                HeadName(static_cast<ActionHead>(h)));
    }
  }
}

TEST(FactoredActionTest, DefaultIsThePlaceholderOfEveryHead) {
  const std::array<int64_t, kNumActionHeads> placeholders = {0, 0, 2, 1,
                                                             2, 0, 0, 0};
  EXPECT_EQ(FactoredAction().ToIndices(), placeholders);
}

TEST(DecodeActionTest, GivesEveryIndexItsPhysicalMeaning) {
  FactoredAction action;
  action.blueprint = BlueprintIndex("bottleneck");
  action.style = 3;
  action.tempo = 2;
  action.alpha_target = 1;
  action.alpha_speed = 3;
  action.alpha_curve = 4;
  const ActionParameters decoded = DecodeAction(action);
  EXPECT_EQ(decoded.blueprint_id, "bottleneck");
  EXPECT_EQ(decoded.blend_id, "gated");
  EXPECT_EQ(decoded.alpha_algorithm, 3);
  EXPECT_EQ(decoded.tempo_epochs, 8);
  EXPECT_DOUBLE_EQ(decoded.alpha_target, 0.7);
  EXPECT_EQ(decoded.alpha_steps, 8);
  EXPECT_EQ(decoded.alpha_curve, 3);
  EXPECT_DOUBLE_EQ(decoded.alpha_steepness, 24);
}

TEST(HeadTest, HasOneLabelPerChoiceAndTheSizesOfTheSchema) {
  const int sizes[] = {3, 13, 4, 3, 3, 4, 5, 6};
  for (int h = 0; h < kNumActionHeads; ++h) {
    const auto head = static_cast<ActionHead>(h);
    EXPECT_EQ(HeadSize(head, 3), sizes[h]);
    if (head == ActionHead::kSlot) continue;
    EXPECT_EQ(HeadLabels(head).size(), sizes[h]) << HeadName(head);
  }
}

TEST(BlueprintTest, IndexAndIdAreInverse) {
  for (int64_t i = 0; i < kNumBlueprints; ++i) {
    EXPECT_EQ(BlueprintIndex(BlueprintId(i)), i);
  }
  EXPECT_EQ(BlueprintIndex("conv_huge"), -1);
}

TEST(StageTest, LivesFromGerminatedToFossilized) {
  for (int64_t stage = -1; stage <= 12; ++stage) {
    const bool live =
        stage == 2 || stage == 3 || stage == 4 || stage == 6 || stage == 7;
    EXPECT_EQ(IsLiveStage(stage), live) << stage;
  }
}

}  // namespace
}  // namespace esper::policy
