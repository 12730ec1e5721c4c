#include "core/env/episode_config.h"

#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/env/episode.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/env/play.h"

namespace esper::env {
namespace {

using ::testing::HasSubstr;

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
          "host_lr": 0.25, "seed_lr": 0.125, "max_grad_norm": 2,
          "reward_timing": "intent", "rollback_rewards": "forfeited"})",
      base);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->max_seeds, 2);
  EXPECT_TRUE(read->auto_forward_g1);
  EXPECT_EQ(read->trainer.fossil, TrainerOptions::Fossil::kFrozen);
  EXPECT_EQ(read->reward.mode, RewardMode::kSimplified);
  EXPECT_EQ(read->trainer.val_samples, 100);
  EXPECT_EQ(read->trainer.host_lr, 0.25);
  EXPECT_EQ(read->trainer.seed_lr, 0.125);
  EXPECT_EQ(read->trainer.max_grad_norm, 2);
  EXPECT_EQ(read->trainer.samples_per_epoch, 128);
  EXPECT_EQ(read->reward_timing, EpisodeConfig::RewardTiming::kIntent);
  EXPECT_TRUE(EpisodeConfigFromJson("", base).ok());

  const std::vector<std::pair<std::string, std::string>> bad = {
      {"{\"max_seed\": 2}", "nearest is \"max_seeds\""},
      {"{\"profile\": \"upstreem\"}", "upstream"},
      {"{\"control\": \"off\"}", "off_switch"},
      {"{\"control\": 1}", "name"},
      {"[1]", "object"},
      {"{", "object"},
      {"{\"max_seeds\": \"two\"}", "max_seeds"},
      {"{\"max_seeds\": -2}", "max_seeds"},
      {"{\"host_lr\": 0}", "learning rates"},
      {"{\"fossil\": \"thaw\"}", "frozen"},
      {"{\"val_samples\": 100000}", "val_samples"},
      {"{\"reward\": {\"reward_mod\": \"shaped\"}}", "reward_mode"}};
  for (const auto& [text, words] : bad) {
    const auto refused = EpisodeConfigFromJson(text, base);
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument)
        << text;
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr(words));
  }
}

TEST(EpisodeConfigTest, OneFieldSetsEverySwitchToUpstreamsSide) {
  const EpisodeConfig base = SmallConfig(1, 5);
  const auto upstream =
      EpisodeConfigFromJson(R"({"profile": "upstream"})", base);
  ASSERT_TRUE(upstream.ok()) << upstream.status();
  EXPECT_EQ(upstream->reward.attribution,
            RewardConfig::Attribution::kTargetSlot);
  EXPECT_EQ(upstream->reward.basic_gain, RewardConfig::BasicGain::kLastStep);
  EXPECT_EQ(upstream->reward.contributing,
            RewardConfig::Contributing::kSinceGermination);
  EXPECT_FALSE(upstream->reward.flush_pending_at_end);
  EXPECT_TRUE(std::isinf(upstream->reward.prune_attribution_cap));
  EXPECT_EQ(upstream->loss_delta, EpisodeConfig::LossDelta::kOldMinusNew);
  EXPECT_EQ(upstream->rollback_rewards,
            EpisodeConfig::RollbackRewards::kForfeited);
  EXPECT_EQ(upstream->reward_timing, EpisodeConfig::RewardTiming::kIntent);
  EXPECT_EQ(upstream->freshness,
            policy::ObservationTracking::Freshness::kUpstream);
  EXPECT_EQ(upstream->init_profile, slot::InitProfile::kUpstream);
  EXPECT_EQ(upstream->trainer.fossil, TrainerOptions::Fossil::kOwnOptimizer);
  EXPECT_EQ(upstream->trainer.samples_per_epoch, 128);

  // And back.
  const auto back =
      EpisodeConfigFromJson(R"({"profile": "default"})", *upstream);
  EXPECT_EQ(back->reward.attribution, RewardConfig::Attribution::kAllSlots);
  EXPECT_EQ(back->reward_timing, base.reward_timing);
  EXPECT_EQ(back->trainer.fossil, base.trainer.fossil);
  EXPECT_EQ(back->freshness, base.freshness);
}

TEST(EpisodeConfigTest, ExplicitKeysOverrideTheProfileWhereverTheyStand) {
  const auto read = EpisodeConfigFromJson(
      R"({"fossil": "frozen", "profile": "upstream", "tracking": "measured",
          "reward": {"reward_mode": "basic_plus", "attribution": "all_slots"}})",
      SmallConfig(1, 5));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->trainer.fossil, TrainerOptions::Fossil::kFrozen);
  EXPECT_EQ(read->freshness, policy::ObservationTracking::Freshness::kMeasured);
  EXPECT_EQ(read->reward.mode, RewardMode::kBasicPlus);
  EXPECT_EQ(read->reward.attribution, RewardConfig::Attribution::kAllSlots);
  EXPECT_EQ(read->reward.basic_gain, RewardConfig::BasicGain::kLastStep);
  EXPECT_EQ(read->reward_timing, EpisodeConfig::RewardTiming::kIntent);
}

}  // namespace
}  // namespace esper::env
