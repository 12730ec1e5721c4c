#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core/env/episode.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/env/play.h"

namespace esper::env {
namespace {

using policy::Op;

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

}  // namespace
}  // namespace esper::env
