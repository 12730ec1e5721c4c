#include "core/env/control_schedule.h"

#include <string>

#include "core/env/episode_config.h"
#include "core/env/episode_policy.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/env/play.h"

namespace esper::env {
namespace {

using policy::ActionHead;
using policy::Op;
using ::testing::HasSubstr;

EpisodeConfig Controlled(const std::string& name, int max_epochs) {
  EpisodeConfig config = SmallConfig(11, max_epochs);
  config.control = ControlSchedule::ByName(name).value();
  return config;
}

TEST(ControlScheduleTest, RefusesUnknownNamesWithTheNearest) {
  for (const std::string& name : ControlSchedule::Names()) {
    EXPECT_TRUE(ControlSchedule::ByName(name).ok()) << name;
  }
  const auto unknown = ControlSchedule::ByName("of_switch");
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(unknown.status().message()),
              HasSubstr("nearest is \"off_switch\""));
}

TEST(ControlScheduleTest, LeavesOneEntryOfEveryHeadThatMatters) {
  auto episode = Start(SmallConfig(11, 3));
  policy::ActionMask mask = episode->observation().mask;
  const policy::ActionMask before = mask;
  const auto schedule = ControlSchedule::ByName("fixed_schedule").value();
  ASSERT_TRUE(schedule.Narrow(1, &mask).ok());
  const auto choices = schedule.ActionAt(1).ToIndices();
  for (int h = 0; h < policy::kNumActionHeads; ++h) {
    const auto head = static_cast<ActionHead>(h);
    const std::vector<bool> allowed = mask.HeadMask(head);
    if (IsRelevantHead(head, Op::kGerminate)) {
      EXPECT_EQ(std::count(allowed.begin(), allowed.end(), true), 1);
      EXPECT_TRUE(allowed[choices[h]]) << policy::HeadName(head);
    } else {
      EXPECT_EQ(allowed, before.HeadMask(head)) << policy::HeadName(head);
    }
  }
  EXPECT_TRUE(mask.AllowsSlot(Op::kGerminate, 0));
  EXPECT_EQ(std::count(mask.slot_by_op.begin(), mask.slot_by_op.end(), true),
            1);
}

TEST(ControlScheduleTest, RefusesAnActionThatTheMasksForbid) {
  auto episode = Start(SmallConfig(11, 3));
  policy::ActionMask mask = episode->observation().mask;
  const policy::ActionMask before = mask;
  // Nothing germinated, so nothing can advance.
  const absl::Status refused =
      ControlSchedule::ByName("static_schedule")->Narrow(2, &mask);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("ADVANCE of epoch 2"));
  EXPECT_EQ(mask.heads, before.heads);
  EXPECT_EQ(mask.slot_by_op, before.slot_by_op);
}

// Plays with a policy that would do anything, were it asked.
std::vector<StepResult> Play(EpisodeConfig config, EpisodeSummary* summary) {
  auto episode = Start(std::move(config));
  auto policy = MakeBaseline("random_legal").value();
  policy->Reset(*episode);
  std::vector<StepResult> steps;
  while (!episode->done()) {
    steps.push_back(Take(*episode, policy->Act(*episode)));
  }
  *summary = episode->Summary();
  return steps;
}

TEST(ControlScheduleTest, TheOffSwitchLeavesTheHostAlone) {
  EpisodeSummary summary;
  const auto steps = Play(Controlled("off_switch", 8), &summary);
  ASSERT_EQ(steps.size(), 8u);
  for (const StepResult& step : steps) {
    EXPECT_EQ(step.action.op, Op::kWait);
    EXPECT_TRUE(step.forced);
  }
  EXPECT_EQ(summary.seeds_germinated, 0);
  EXPECT_EQ(summary.host_accuracy, summary.host_accuracy_without_seeds);
  EXPECT_EQ(summary.total_params, summary.host_params);
}

TEST(ControlScheduleTest, TheFixedSchedulePlantsOnceAndIsForcedThroughout) {
  EpisodeSummary summary;
  const auto steps = Play(Controlled("fixed_schedule", 4), &summary);
  ASSERT_EQ(steps.size(), 4u);
  EXPECT_EQ(steps[0].effective_op, Op::kGerminate);
  EXPECT_EQ(steps[0].slots[0].blueprint, "norm");
  for (const StepResult& step : steps) {
    EXPECT_TRUE(step.forced);
    if (step.epoch == 1) continue;
    EXPECT_EQ(step.action.op, Op::kWait);
  }
  EXPECT_EQ(summary.seeds_germinated, 1);
}

TEST(ControlScheduleTest, TheStaticScheduleEndsWithAFossil) {
  EpisodeSummary summary;
  const auto steps = Play(Controlled("static_schedule", 20), &summary);
  ASSERT_EQ(steps.size(), 20u);
  EXPECT_EQ(steps.back().slots[0].stage, "FOSSILIZED");
  EXPECT_EQ(summary.seeds_fossilized, 1);
}

}  // namespace
}  // namespace esper::env
