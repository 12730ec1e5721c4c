#include "core/env/episode.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/env/vector_env.h"
#include "core/policy/observation.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/env/random_play.h"

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

std::unique_ptr<Episode> Start(EpisodeConfig config) {
  auto episode = Episode::Create(std::move(config));
  EXPECT_TRUE(episode.ok()) << episode.status();
  return *std::move(episode);
}

StepResult Take(Episode& episode, const FactoredAction& action) {
  auto result = episode.Step(action);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *std::move(result) : StepResult();
}

FactoredAction Act(Op op, int64_t slot = 0) {
  FactoredAction action;
  action.op = op;
  action.slot = slot;
  return action;
}

FactoredAction Plant(int64_t slot, const std::string& blueprint,
                     int64_t tempo = 0) {
  FactoredAction action = Act(Op::kGerminate, slot);
  action.blueprint = policy::BlueprintIndex(blueprint);
  action.style = 0;  // Linear, add.
  action.tempo = tempo;
  return action;
}

// All that a policy or a learner would see of an episode.
struct Trace {
  std::vector<std::vector<float>> features;
  std::vector<std::vector<int64_t>> blueprints;
  std::vector<std::string> masks;
  std::vector<double> rewards;
  std::vector<double> losses;

  bool operator==(const Trace& other) const {
    return features == other.features && blueprints == other.blueprints &&
           masks == other.masks && rewards == other.rewards &&
           losses == other.losses;
  }

  void See(const Observation& observation) {
    features.push_back(observation.features);
    blueprints.push_back(observation.blueprint_indices);
    masks.push_back(policy::PackMaskBits(observation.mask));
  }
  void See(const StepResult& result) {
    rewards.push_back(result.reward);
    losses.push_back(result.train_loss);
    losses.push_back(result.val_loss);
  }
};

// Plays the seeds side by side in one process, with random legal actions.
std::map<uint64_t, Trace> PlaySideBySide(const std::vector<uint64_t>& seeds,
                                         int max_epochs) {
  VectorEnv envs(seeds.size());
  std::map<uint64_t, Trace> traces;
  for (size_t id = 0; id < seeds.size(); ++id) {
    EXPECT_TRUE(envs.Start(id, SmallConfig(seeds[id], max_epochs)).ok());
  }
  while (!envs.Running().empty()) {
    std::vector<EnvAction> actions;
    for (int id : envs.Running()) {
      const Observation& seen = envs.episode(id)->observation();
      traces[seeds[id]].See(seen);
      actions.push_back({id, RandomLegalAction(seen.mask, seeds[id],
                                               envs.episode(id)->steps())});
    }
    const auto results = envs.Step(actions);
    EXPECT_TRUE(results.ok()) << results.status();
    for (size_t i = 0; i < actions.size(); ++i) {
      traces[seeds[actions[i].env_id]].See((*results)[i]);
    }
  }
  for (size_t id = 0; id < seeds.size(); ++id) {
    traces[seeds[id]].See(envs.episode(id)->observation());
  }
  return traces;
}

TEST(EpisodeTest, IsTheSameAloneAndBesideOthers) {
  constexpr int kEpochs = 25;
  std::map<uint64_t, Trace> beside = PlaySideBySide({7, 8, 9}, kEpochs);
  for (uint64_t seed : {9, 8, 7}) {
    std::map<uint64_t, Trace> alone = PlaySideBySide({seed}, kEpochs);
    EXPECT_TRUE(alone[seed] == beside[seed]) << "seed " << seed;
    EXPECT_EQ(alone[seed].rewards.size(), kEpochs);
    EXPECT_EQ(alone[seed].features.size(), kEpochs + 1);
  }
  EXPECT_FALSE(beside[7] == beside[8]);
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
  task->data.test.images = at::zeros_like(task->data.test.images);
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

double Part(const StepResult& result, const std::string& wanted) {
  for (const auto& [name, value] : result.reward_parts) {
    if (name == wanted) return value;
  }
  ADD_FAILURE() << "no part " << wanted;
  return 0;
}

TEST(EpisodeRollbackTest, TerminatesWithThePenaltyOnTheLastActionTaken) {
  constexpr int kEpochs = 8;
  auto play = [](int panic_epoch, EpisodeConfig::RollbackRewards rewards) {
    EpisodeConfig config = SmallConfig(13, kEpochs);
    config.rollback_rewards = rewards;
    config.val_loss_hook = [panic_epoch](int epoch, double loss) {
      return epoch == panic_epoch ? std::numeric_limits<double>::quiet_NaN()
                                  : loss;
    };
    auto episode = Start(config);
    std::vector<StepResult> results;
    while (!episode->done()) {
      const int step = episode->steps();
      results.push_back(
          Take(*episode, step == 0 ? Plant(0, "norm") : Act(Op::kWait)));
    }
    EXPECT_EQ(episode->Step(Act(Op::kWait)).status().code(),
              absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(episode->Summary().steps, results.size());
    return std::make_pair(results, episode->Summary());
  };
  const auto kept = EpisodeConfig::RollbackRewards::kKept;
  const auto healthy = play(/*panic_epoch=*/0, kept).first;
  ASSERT_EQ(healthy.size(), kEpochs);
  EXPECT_TRUE(healthy.back().truncated);

  for (int panic = 2; panic <= kEpochs; ++panic) {
    SCOPED_TRACE(panic);
    const auto [results, summary] = play(panic, kept);
    ASSERT_EQ(results.size(), panic - 1);
    const StepResult& last = results.back();
    EXPECT_TRUE(last.terminated);
    EXPECT_FALSE(last.truncated);
    EXPECT_EQ(last.end_reason, "governor_nan");
    EXPECT_EQ(Part(last, "governor"), -10.0);
    for (size_t i = 0; i < results.size(); ++i) {
      const double penalty = i + 1 == results.size() ? -10.0 : 0.0;
      EXPECT_NEAR(results[i].reward, healthy[i].reward + penalty, 1e-12);
    }
    EXPECT_TRUE(summary.terminated);
    EXPECT_EQ(summary.seeds_pruned, 1);
    EXPECT_EQ(summary.total_params, summary.host_params);

    const auto [forfeited, forfeit_summary] =
        play(panic, EpisodeConfig::RollbackRewards::kForfeited);
    EXPECT_TRUE(forfeited.back().forfeits_earlier_rewards);
    EXPECT_EQ(forfeited.back().reward, -10.0);
    EXPECT_EQ(forfeit_summary.episode_return, -10.0);
  }
}

TEST(EpisodeRollbackTest, EndsWithoutAStepIfTheFirstEpochPanics) {
  EpisodeConfig config = SmallConfig(13, 5);
  config.val_loss_hook = [](int, double) {
    return std::numeric_limits<double>::infinity();
  };
  auto episode = Start(config);
  EXPECT_TRUE(episode->done());
  EXPECT_EQ(episode->steps(), 0);
  EXPECT_EQ(episode->Summary().end_reason, "governor_nan");
  EXPECT_EQ(episode->Summary().episode_return, 0);
}

TEST(EpisodeRollbackTest, NamesWhatTheHostDiedOf) {
  const std::vector<std::pair<std::string, double>> cases = {
      {"governor_lobotomy", std::log(10.0)}, {"governor_divergence", 50.0}};
  for (const auto& [reason, late_loss] : cases) {
    EpisodeConfig config = SmallConfig(13, 20);
    config.val_loss_hook = [late = late_loss](int epoch, double) {
      return epoch <= 12 ? 0.5 + 0.01 * (epoch % 2) : late;
    };
    auto episode = Start(config);
    StepResult last;
    while (!episode->done()) last = Take(*episode, Act(Op::kWait));
    EXPECT_TRUE(last.terminated);
    EXPECT_EQ(last.end_reason, reason);
  }
}

TEST(EpisodeRollbackTest, RestoresAHostThatReallyDiverged) {
  EpisodeConfig config = SmallConfig(13, 6);
  config.trainer.host_lr = 1e38;
  auto episode = Start(config);
  while (!episode->done()) Take(*episode, Act(Op::kWait));
  const EpisodeSummary summary = episode->Summary();
  EXPECT_TRUE(summary.terminated);
  EXPECT_EQ(summary.end_reason, "governor_nan");
  // The restored network predicts again: a guess, but a number.
  EXPECT_GE(summary.host_accuracy, 0.0);
}

TEST(EpisodeConfigTest, RefusesImpossibleOptionsAtTheStart) {
  auto code = [](std::function<void(EpisodeConfig&)> change) {
    EpisodeConfig config = SmallConfig(1, 5);
    change(config);
    return Episode::Create(config).status().code();
  };
  const auto invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(code([](auto& c) { c.task = nullptr; }), invalid);
  EXPECT_EQ(code([](auto& c) { c.max_epochs = 0; }), invalid);
  EXPECT_EQ(code([](auto& c) { c.max_seeds = -1; }), invalid);
  EXPECT_EQ(code([](auto& c) { c.trainer.samples_per_epoch = 63; }), invalid);
  EXPECT_EQ(code([](auto& c) { c.trainer.samples_per_epoch = 1e6; }), invalid);
  EXPECT_EQ(code([](auto& c) { c.trainer.val_samples = 1e6; }), invalid);
  EXPECT_EQ(code([](auto& c) { c.trainer.gradient_stride = 0; }), invalid);
  EXPECT_EQ(code([](auto& c) { c.trainer.host_lr = 0; }), invalid);
  EXPECT_EQ(code([](auto& c) { c.governor.history_window = 9; }), invalid);
  EXPECT_EQ(code([](auto& c) { c.reward.gamma = 0.9; }), invalid);
}

TEST(EpisodeConfigTest, ReadsJsonAndRefusesUnknownKeysByName) {
  const EpisodeConfig base = SmallConfig(1, 5);
  const auto read = EpisodeConfigFromJson(
      R"({"max_seeds": 2, "auto_forward_g1": true, "fossil": "frozen",
          "reward": {"reward_mode": "simplified"}, "val_samples": 100,
          // comments are fine
          "reward_timing": "intent", "rollback_rewards": "forfeited"})",
      base);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->max_seeds, 2);
  EXPECT_TRUE(read->auto_forward_g1);
  EXPECT_EQ(read->trainer.fossil, TrainerOptions::Fossil::kFrozen);
  EXPECT_EQ(read->reward.mode, RewardMode::kSimplified);
  EXPECT_EQ(read->trainer.val_samples, 100);
  EXPECT_EQ(read->trainer.samples_per_epoch, 128);
  EXPECT_EQ(read->reward_timing, EpisodeConfig::RewardTiming::kIntent);
  EXPECT_TRUE(EpisodeConfigFromJson("", base).ok());

  const std::vector<std::pair<std::string, std::string>> bad = {
      {"{\"max_seed\": 2}", "max_seeds"},
      {"[1]", "object"},
      {"{", "object"},
      {"{\"max_seeds\": \"two\"}", "max_seeds"},
      {"{\"max_seeds\": -2}", "max_seeds"},
      {"{\"fossil\": \"thaw\"}", "frozen"},
      {"{\"val_samples\": 100000}", "val_samples"},
      {"{\"reward\": {\"reward_mod\": \"shaped\"}}", "reward"}};
  for (const auto& [text, words] : bad) {
    const auto refused = EpisodeConfigFromJson(text, base);
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument)
        << text;
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr(words));
  }
}

TEST(VectorEnvTest, ChecksAllActionsBeforeItStepsAny) {
  VectorEnv envs(2);
  EXPECT_EQ(envs.Start(2, SmallConfig(1, 3)).code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(envs.Start(0, SmallConfig(1, 3)).ok());
  const auto code = [&envs](const std::vector<EnvAction>& actions) {
    return envs.Step(actions).status().code();
  };
  const EnvAction good{0, Act(Op::kWait)};
  EXPECT_EQ(code({good, good}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({good, {5, Act(Op::kWait)}}),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({good, {1, Act(Op::kWait)}}),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(envs.Start(1, SmallConfig(1, 3)).ok());
  EXPECT_EQ(code({good, {1, Act(Op::kWait, 9)}}),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(envs.episode(0)->steps(), 0);
  EXPECT_THAT(envs.Running(), ElementsAre(0, 1));
  EXPECT_TRUE(envs.Step({good}).ok());
  EXPECT_EQ(envs.episode(0)->steps(), 1);
  EXPECT_EQ(envs.episode(1)->steps(), 0);
  envs.Stop(0);
  EXPECT_EQ(envs.episode(0), nullptr);
  EXPECT_THAT(envs.Running(), ElementsAre(1));
}

TEST(VectorEnvTest, ARollbackInOneLeavesTheOthersAsTheyWouldBeAlone) {
  constexpr int kEpochs = 6;
  auto config = [](int id) {
    EpisodeConfig config = SmallConfig(40 + id, kEpochs);
    if (id == 1) {
      config.val_loss_hook = [](int epoch, double loss) {
        return epoch == kEpochs ? std::numeric_limits<double>::quiet_NaN()
                                : loss;
      };
    }
    return config;
  };
  VectorEnv envs(4);
  for (int id = 0; id < 4; ++id) ASSERT_TRUE(envs.Start(id, config(id)).ok());
  while (!envs.Running().empty()) {
    std::vector<EnvAction> actions;
    for (int id : envs.Running()) {
      actions.push_back({id, envs.episode(id)->steps() == 0
                                 ? Plant(id % 3, "norm")
                                 : Act(Op::kWait)});
    }
    ASSERT_TRUE(envs.Step(actions).ok());
  }
  EXPECT_TRUE(envs.episode(1)->Summary().terminated);
  for (int id : {0, 2, 3}) {
    auto alone = Start(config(id));
    while (!alone->done()) {
      Take(*alone,
           alone->steps() == 0 ? Plant(id % 3, "norm") : Act(Op::kWait));
    }
    EXPECT_EQ(envs.episode(id)->observation().features,
              alone->observation().features);
    EXPECT_EQ(envs.episode(id)->Summary().episode_return,
              alone->Summary().episode_return);
  }
}

}  // namespace
}  // namespace esper::env
