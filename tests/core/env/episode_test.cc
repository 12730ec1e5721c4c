#include "core/env/episode.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/env/image_dataset.h"
#include "core/policy/observation.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/env/play.h"

namespace esper::env {
namespace {

using policy::FactoredAction;
using policy::Op;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kFreshness = 29;  // Of a slot's block of the observation.

float SlotFeature(const Observation& observation, int slot, int feature) {
  return observation.features[policy::kObservationBaseWidth +
                              slot * policy::kObservationSlotWidth + feature];
}

TEST(EpisodeTest, LeavesTheGlobalGeneratorAlone) {
  const at::Tensor before =
      at::detail::getDefaultCPUGenerator().get_state().clone();
  auto episode = Start(SmallConfig(3, 6));
  while (!episode->done()) {
    Take(*episode,
         RandomLegalAction(episode->observation().mask, 11, episode->steps()));
  }
  EXPECT_TRUE(
      at::equal(before, at::detail::getDefaultCPUGenerator().get_state()));
}

TEST(EpisodeTest, GrowsASeedThroughAllStagesToAFossil) {
  auto episode = Start(SmallConfig(5, 30));
  std::vector<std::string> stages;
  std::vector<double> blend;
  bool refused_before_gate = false;
  StepResult last;
  while (!episode->done()) {
    const policy::ActionMask& mask = episode->observation().mask;
    FactoredAction action = Act(Op::kWait);
    if (mask.AllowsSlot(Op::kFossilize, 0)) {
      action = Act(Op::kFossilize);
    } else if (mask.AllowsSlot(Op::kAdvance, 0)) {
      action = Act(Op::kAdvance);
    } else if (stages.empty()) {
      action = Plant(0, "conv_small");
    }
    last = Take(*episode, action);
    const SlotSnapshot& slot = last.slots[0];
    if (stages.empty() || stages.back() != slot.stage) {
      stages.push_back(slot.stage);
    }
    if (slot.stage == "BLENDING") blend.push_back(slot.alpha);
    if (!last.success) {
      // The gate is not ready: the action counts as WAIT.
      refused_before_gate = true;
      EXPECT_EQ(last.effective_op, Op::kWait);
      EXPECT_THAT(last.refusal, HasSubstr("GATE_FAILED"));
    }
  }
  EXPECT_THAT(stages, ElementsAre("GERMINATED", "TRAINING", "BLENDING",
                                  "HOLDING", "FOSSILIZED"));
  EXPECT_THAT(blend, ElementsAre(1.0 / 3, 2.0 / 3, 1.0));
  EXPECT_TRUE(refused_before_gate);
  EXPECT_EQ(last.slots[0].alpha, 1.0);
  EXPECT_TRUE(last.truncated);
  EXPECT_FALSE(last.terminated);

  const EpisodeSummary summary = episode->Summary();
  EXPECT_EQ(summary.seeds_germinated, 1);
  EXPECT_EQ(summary.seeds_blended, 1);
  EXPECT_EQ(summary.seeds_fossilized, 1);
  EXPECT_EQ(summary.seeds_pruned, 0);
  EXPECT_EQ(summary.host_params, 6418 - 2 * 9 * 8);  // One input channel.
  EXPECT_EQ(summary.total_params, summary.host_params + 8 * 8 + 2 * 8);
}

TEST(EpisodeTest, CoolsASlotDownForSevenEpochsAfterAPrune) {
  auto episode = Start(SmallConfig(6, 20));
  Take(*episode, Plant(1, "norm"));
  for (int age = 1; age < 5; ++age) {
    EXPECT_FALSE(episode->observation().mask.AllowsSlot(Op::kPrune, 1));
    const StepResult early = Take(*episode, Act(Op::kPrune, 1));
    EXPECT_FALSE(early.success);
    EXPECT_EQ(early.effective_op, Op::kWait);
    EXPECT_EQ(early.slots[1].stage, "GERMINATED");
  }
  ASSERT_TRUE(episode->observation().mask.AllowsSlot(Op::kPrune, 1));
  StepResult result = Take(*episode, Act(Op::kPrune, 1));
  EXPECT_TRUE(result.success);
  int cooling = 0;
  while (!result.slots[1].stage.empty()) {
    ++cooling;
    EXPECT_FALSE(episode->observation().mask.AllowsSlot(Op::kGerminate, 0));
    result = Take(*episode, Act(Op::kWait));
  }
  // The tick of the prune's own step is the first of the seven.
  EXPECT_EQ(cooling, 6);
  EXPECT_TRUE(episode->observation().mask.AllowsSlot(Op::kGerminate, 1));
  EXPECT_EQ(episode->observation().blueprint_indices[1], -1);
  EXPECT_EQ(SlotFeature(episode->observation(), 1, 0), 0.0f);
  EXPECT_EQ(episode->Summary().seeds_pruned, 1);
}

TEST(EpisodeTest, RampsAlphaDownBeforeAScheduledPrune) {
  auto episode = Start(SmallConfig(5, 30));
  Take(*episode, Plant(0, "conv_small"));
  StepResult result;
  do {
    result = Take(*episode, Act(Op::kAdvance));
  } while (result.slots[0].stage != "HOLDING" && !episode->done());
  FactoredAction prune = Act(Op::kPrune);
  prune.alpha_speed = 1;  // Three epochs.
  std::vector<double> alphas;
  result = Take(*episode, prune);
  ASSERT_TRUE(result.success) << result.refusal;
  while (result.slots[0].stage == "BLENDING") {
    alphas.push_back(result.slots[0].alpha);
    // Neither retarget nor prune applies to a moving alpha.
    EXPECT_FALSE(episode->observation().mask.AllowsSlot(Op::kPrune, 0));
    EXPECT_FALSE(
        episode->observation().mask.AllowsSlot(Op::kSetAlphaTarget, 0));
    result = Take(*episode, Act(Op::kWait));
  }
  ASSERT_EQ(alphas.size(), 2u);
  EXPECT_DOUBLE_EQ(alphas[0], 2.0 / 3);
  EXPECT_DOUBLE_EQ(alphas[1], 1.0 / 3);
  EXPECT_EQ(result.slots[0].stage, "PRUNED");
}

TEST(EpisodeTest, CarriesOutEveryActionThatItsMasksAllow) {
  std::set<Op> done;
  for (uint64_t seed : {21, 22, 23}) {
    SCOPED_TRACE(seed);
    auto episode = Start(SmallConfig(seed, 60));
    while (!episode->done()) {
      const Observation seen = episode->observation();
      const FactoredAction action =
          RandomLegalAction(seen.mask, seed, episode->steps());
      const StepResult result = Take(*episode, action);
      ASSERT_EQ(result.success, result.refusal.empty());
      if (result.success) {
        done.insert(action.op);
        EXPECT_EQ(result.effective_op, action.op);
      } else {
        // Only a gate may say no to what the masks allow.
        EXPECT_TRUE(action.op == Op::kAdvance || action.op == Op::kFossilize);
        EXPECT_THAT(result.refusal, HasSubstr("GATE_FAILED"));
        EXPECT_EQ(result.effective_op, Op::kWait);
      }
      EXPECT_EQ(result.forced, seen.mask.IsForced());
    }
  }
  EXPECT_EQ(done.size(), policy::kNumOps);
}

TEST(EpisodeTest, RefusesWhatItsMasksForbidAndCountsItAsWait) {
  auto episode = Start(SmallConfig(4, 10));
  const std::vector<float> before = episode->observation().features;
  for (Op op :
       {Op::kSetAlphaTarget, Op::kPrune, Op::kFossilize, Op::kAdvance}) {
    const StepResult result = Take(*episode, Act(op, 2));
    EXPECT_FALSE(result.success);
    EXPECT_EQ(result.effective_op, Op::kWait);
    EXPECT_THAT(result.refusal, HasSubstr("r0c2"));
    EXPECT_EQ(episode->observation().features[16], 0.0f);  // Failed.
  }
  FactoredAction noop = Act(Op::kGerminate);
  EXPECT_FALSE(Take(*episode, noop).success);
  // A blueprint of another topology.
  EXPECT_FALSE(Take(*episode, Plant(0, "lora")).success);
  EXPECT_EQ(episode->Summary().seeds_germinated, 0);
}

TEST(EpisodeTest, RefusesActionsOutOfRangeWithoutTakingAStep) {
  auto episode = Start(SmallConfig(4, 3));
  EXPECT_EQ(episode->Step(Act(Op::kWait, 3)).status().code(),
            absl::StatusCode::kInvalidArgument);
  FactoredAction bad = Act(Op::kGerminate);
  bad.tempo = 3;
  EXPECT_EQ(episode->Step(bad).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(episode->steps(), 0);
  EXPECT_EQ(episode->observation().epoch, 1);
}

TEST(EpisodeTest, MarksContributionsFreshExactlyWhereTheyWereMeasured) {
  auto episode = Start(SmallConfig(5, 30));
  int measured_steps = 0;
  std::vector<int> since(3, -1);  // -1: never measured.
  FactoredAction next = Plant(0, "conv_small");
  while (!episode->done()) {
    const Observation seen = episode->observation();
    const StepResult result = Take(*episode, next);
    for (int s = 0; s < 3; ++s) {
      const bool measured = result.contribution_mask[s] != 0;
      EXPECT_EQ(measured, result.slots[s].contribution.has_value());
      if (measured) {
        EXPECT_FLOAT_EQ(result.contribution_targets[s],
                        *result.slots[s].contribution);
        EXPECT_GE(result.contribution_errors[s], 0);
        since[s] = 0;
      } else {
        EXPECT_EQ(result.contribution_targets[s], 0);
        if (since[s] >= 0) ++since[s];
      }
      if (since[s] >= 0) {
        EXPECT_FLOAT_EQ(SlotFeature(seen, s, kFreshness),
                        std::pow(0.995, since[s]));
      } else if (SlotFeature(seen, s, 0) == 1.0f) {
        // Occupied and never measured: not fresh, however long.
        EXPECT_EQ(SlotFeature(seen, s, kFreshness), -1.0f);
      }
    }
    const bool any = std::count(result.contribution_mask.begin(),
                                result.contribution_mask.end(), 1) > 0;
    EXPECT_EQ(result.contribution_fresh, any);
    // Measured with seeds and without: both or neither.
    EXPECT_EQ(any, result.val_accuracy_without_seeds.has_value());
    measured_steps += any;
    next = Act(Op::kAdvance);
    if (result.slots[0].stage == "HOLDING") next = Act(Op::kWait);
  }
  EXPECT_GT(measured_steps, 5);
}

TEST(EpisodeTest, TruncatesAfterTheLastEpochWithAFinalObservation) {
  auto episode = Start(SmallConfig(4, 3));
  EXPECT_EQ(episode->observation_width(), 116);
  for (int epoch = 1; epoch <= 3; ++epoch) {
    ASSERT_FALSE(episode->done());
    EXPECT_EQ(episode->observation().epoch, epoch);
    EXPECT_EQ(episode->observation().features.size(), 116u);
    EXPECT_FLOAT_EQ(episode->observation().features[0], epoch / 3.0f);
    const StepResult result =
        Take(*episode, epoch == 3 ? Plant(2, "norm") : Act(Op::kWait));
    EXPECT_EQ(result.epoch, epoch);
    EXPECT_EQ(result.truncated, epoch == 3);
    EXPECT_EQ(result.end_reason, epoch == 3 ? "max_epochs" : "");
  }
  EXPECT_TRUE(episode->done());
  // The final observation is after the last action: same epoch, new seed.
  EXPECT_EQ(episode->observation().epoch, 3);
  EXPECT_EQ(SlotFeature(episode->observation(), 2, 0), 1.0f);
  EXPECT_EQ(episode->observation().features[18], 1.0f);  // Last op.
  EXPECT_EQ(episode->Step(Act(Op::kWait)).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(EpisodeTest, RewardsAreTheSumOfTheirPartsAndAddUpToTheReturn) {
  auto episode = Start(SmallConfig(31, 20));
  double total = 0;
  while (!episode->done()) {
    const StepResult result = Take(
        *episode,
        RandomLegalAction(episode->observation().mask, 31, episode->steps()));
    double parts = 0;
    for (const auto& [name, value] : result.reward_parts) parts += value;
    EXPECT_NEAR(parts, result.reward, 1e-12);
    EXPECT_TRUE(std::isfinite(result.reward));
    total += result.reward;
  }
  const EpisodeSummary summary = episode->Summary();
  EXPECT_NEAR(summary.episode_return, total, 1e-9);
  EXPECT_EQ(summary.steps, 20);
  EXPECT_GT(summary.wall_seconds, 0);
}

TEST(EpisodeTest, PaysAWaitTheSameWhicheverSlotItNames) {
  auto play = [](int64_t wait_slot) {
    auto episode = Start(SmallConfig(5, 20));
    Take(*episode, Plant(1, "conv_small"));
    std::vector<double> rewards;
    while (!episode->done()) {
      const bool advance =
          episode->observation().mask.AllowsSlot(Op::kAdvance, 1);
      rewards.push_back(Take(*episode, advance ? Act(Op::kAdvance, 1)
                                               : Act(Op::kWait, wait_slot))
                            .reward);
    }
    return rewards;
  };
  const std::vector<double> first = play(0);
  EXPECT_EQ(first, play(1));
  EXPECT_EQ(first, play(2));
}

TEST(EpisodeTest, NeverLooksAtTheTestSplit) {
  auto task = std::make_shared<Task>(*DigitsTask());
  ImageSet images;
  images.images = at::zeros({task->test->size(), 1, 8, 8});
  images.labels = at::zeros({task->test->size()}, at::kLong);
  task->test = std::make_shared<PlainImageDataset>(images);
  auto play = [](EpisodeConfig config) {
    auto episode = Start(std::move(config));
    Trace trace;
    while (!episode->done()) {
      trace.See(episode->observation());
      trace.See(Take(*episode, RandomLegalAction(episode->observation().mask, 2,
                                                 episode->steps())));
    }
    return std::make_pair(trace, episode->Summary().host_accuracy);
  };
  EpisodeConfig blank = SmallConfig(2, 8);
  blank.task = task;
  const auto real = play(SmallConfig(2, 8));
  const auto zeros = play(blank);
  EXPECT_TRUE(real.first == zeros.first);
  EXPECT_NE(real.second, zeros.second);
}

TEST(EpisodeTest, LearnsTheDigits) {
  EpisodeConfig config = SmallConfig(1, 12);
  config.trainer.samples_per_epoch = 0;
  auto episode = Start(config);
  while (!episode->done()) Take(*episode, Act(Op::kWait));
  const EpisodeSummary summary = episode->Summary();
  EXPECT_GT(summary.host_accuracy, 70.0);
  // Without seeds there is nothing to switch off.
  EXPECT_EQ(summary.host_accuracy, summary.host_accuracy_without_seeds);
}

TEST(EpisodeTest, LossFamilyPaysAFallingLoss) {
  EpisodeConfig config = SmallConfig(1, 5);
  config.reward_family = EpisodeConfig::RewardFamily::kLoss;
  const std::vector<double> losses = {2.0, 1.9, 1.8, 1.95, 1.9};
  config.val_loss_hook = [losses](int epoch, double) {
    return losses[epoch - 1];
  };
  auto episode = Start(config);
  std::vector<double> paid;
  while (!episode->done()) {
    const StepResult result = Take(*episode, Act(Op::kWait));
    for (const auto& [name, value] : result.reward_parts) {
      if (name == "loss") paid.push_back(value);
    }
  }
  ASSERT_EQ(paid.size(), 5u);
  EXPECT_EQ(paid[0], 0);  // No loss to compare with.
  EXPECT_GT(paid[1], 0);
  EXPECT_GT(paid[2], 0);
  EXPECT_LT(paid[3], 0);
  EXPECT_GT(paid[4], 0);
}

TEST(EpisodeTest, UpstreamsLossFamilyPunishesAFallingLoss) {
  EpisodeConfig config = SmallConfig(1, 3);
  config.UseProfile(EpisodeConfig::Profile::kUpstream);
  config.reward_family = EpisodeConfig::RewardFamily::kLoss;
  config.val_loss_hook = [](int epoch, double) { return 2.0 - 0.1 * epoch; };
  auto episode = Start(config);
  std::vector<double> paid;
  while (!episode->done()) {
    for (const auto& [name, value] :
         Take(*episode, Act(Op::kWait)).reward_parts) {
      if (name == "loss") paid.push_back(value);
    }
  }
  // The first step counts as the largest fall: 5 * 5 / 2.
  EXPECT_EQ(paid[0], -12.5);
  EXPECT_LT(paid[1], 0);
}

TEST(EpisodeTest, UpstreamsTrackingNeverHandsFreshContributionsOut) {
  EpisodeConfig config = SmallConfig(5, 20);
  config.freshness = policy::ObservationTracking::Freshness::kUpstream;
  auto episode = Start(config);
  bool measured = false;
  FactoredAction next = Plant(0, "conv_small");
  while (!episode->done()) {
    const StepResult result = Take(*episode, next);
    EXPECT_FALSE(result.contribution_fresh);
    measured |= result.contribution_mask[0] != 0;
    // The slot counts as measured one step after its first one.
    if (result.epoch == 2) {
      EXPECT_FLOAT_EQ(SlotFeature(episode->observation(), 0, kFreshness), 1);
    }
    next = Act(Op::kAdvance);
  }
  EXPECT_TRUE(measured);
}

TEST(EpisodeTest, PaysARefusedAdvanceAsAWait) {
  auto play = [](EpisodeConfig::RewardTiming timing) {
    EpisodeConfig config = SmallConfig(5, 10);
    config.reward_timing = timing;
    auto episode = Start(config);
    Take(*episode, Plant(0, "conv_small"));
    Take(*episode, Act(Op::kAdvance));
    const StepResult refused = Take(*episode, Act(Op::kAdvance));
    EXPECT_FALSE(refused.success);
    EXPECT_EQ(refused.slots[0].stage, "TRAINING");
    return refused;
  };
  const StepResult outcome = play(EpisodeConfig::RewardTiming::kOutcome);
  const StepResult intent = play(EpisodeConfig::RewardTiming::kIntent);
  EXPECT_EQ(outcome.effective_op, Op::kWait);
  EXPECT_EQ(intent.effective_op, Op::kAdvance);
  // Leaving TRAINING costs 0.1; it was not left.
  EXPECT_NEAR(outcome.reward - intent.reward, 0.1, 1e-12);
}

}  // namespace
}  // namespace esper::env
