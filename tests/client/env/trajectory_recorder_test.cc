#include "client/env/trajectory_recorder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/tensor.h"

namespace esper::client {
namespace {

using ::testing::ElementsAre;

TEST(TrajectoryRecorderTest, KeepsStepsAsTheyTravelled) {
  TrajectoryRecorder recorder;
  ActionRow action;
  action.actions = {1, 255};
  action.log_probs = {-0.5f, -1};
  action.value = 2;
  action.policy_version = 3;
  recorder.Add({{1, 2, 3}, {-1, 4}, {9}}, action, {0.5f, 0, true, {}, {}});
  action.actions = {0, 7};
  recorder.Add({{4, 5, 6}, {0, -1}, {8}}, action,
               {1.5f, 1, false, {7, 2.5f}, {0, 1}});
  EXPECT_EQ(recorder.steps(), 2);
  v1::Trajectory trajectory =
      recorder.Finish("digest", "key", v1::END_KIND_TRUNCATED, 1.25f);
  EXPECT_EQ(trajectory.bootstrap_value(), 1.25f);
  EXPECT_EQ(DescribeTensor(trajectory.actions()), "uint8 [2, 2]");
  EXPECT_THAT(*UnpackIntegers(trajectory.actions(), {2, 2}, "actions"),
              ElementsAre(1, 255, 0, 7));
  EXPECT_THAT(*UnpackTensor<int8_t>(trajectory.categorical(), {2, 2}, "c"),
              ElementsAre(-1, 4, 0, -1));
  EXPECT_THAT(*UnpackTensor<float>(trajectory.rewards(), {2}, "rewards"),
              ElementsAre(0.5f, 1.5f));
  EXPECT_EQ(DescribeTensor(trajectory.forced()), "bool [2]");
  EXPECT_EQ(trajectory.forced().data(), std::string("\1\0", 2));
  // What was not measured is 0, whatever the environment left there.
  EXPECT_THAT(
      *UnpackTensor<float>(trajectory.contribution_targets(), {2, 2}, "t"),
      ElementsAre(0, 0, 0, 2.5f));
  EXPECT_EQ(trajectory.contribution_mask().data(), std::string("\0\0\0\1", 4));

  recorder.ForfeitEarlierRewards();
  trajectory = recorder.Finish("digest", "key", v1::END_KIND_TERMINATED, 9);
  EXPECT_THAT(*UnpackTensor<float>(trajectory.rewards(), {2}, "rewards"),
              ElementsAre(0, 1.5f));
  EXPECT_EQ(trajectory.bootstrap_value(), 0);
}

TEST(TrajectoryRecorderTest, KeepsContinuousActionsAsTheyCame) {
  TrajectoryRecorder recorder;
  ActionRow action;
  action.actions = {0};
  action.log_probs = {1.5f};
  action.continuous = {0.25f, -3};
  recorder.Add({{1}, {}, {}}, action, {});
  action.continuous = {7, 0};
  StepOutcome outcome;
  outcome.effective_choice = 300;
  recorder.Add({{1}, {}, {}}, action, outcome);
  const v1::Trajectory trajectory =
      recorder.Finish("digest", "key", v1::END_KIND_TERMINATED, 0);
  EXPECT_THAT(
      *UnpackTensor<float>(trajectory.continuous_actions(), {2, 2}, "c"),
      ElementsAre(0.25f, -3, 7, 0));
  EXPECT_THAT(*UnpackIntegers(trajectory.effective_choices(), {2}, "e"),
              ElementsAre(0, 300));
}

TEST(TrajectoryRecorderTest, LeavesOutWhatNobodyMeasuredAndWidensLargeActions) {
  TrajectoryRecorder recorder;
  ActionRow action;
  action.actions = {300};
  action.log_probs = {-1};
  recorder.Add({{1}, {}, {}}, action, {});
  const v1::Trajectory trajectory =
      recorder.Finish("digest", "key", v1::END_KIND_TERMINATED, 0);
  EXPECT_FALSE(trajectory.has_contribution_targets());
  EXPECT_FALSE(trajectory.has_categorical());
  EXPECT_FALSE(trajectory.has_action_masks());
  EXPECT_FALSE(trajectory.has_continuous_actions());
  EXPECT_EQ(DescribeTensor(trajectory.actions()), "int64 [1, 1]");
}

}  // namespace
}  // namespace esper::client
