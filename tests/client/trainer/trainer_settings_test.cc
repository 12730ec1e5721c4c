#include "client/trainer/trainer_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/env/episode_config.h"
#include "core/env/reward_config.h"
#include "nlohmann/json.hpp"
#include "proto/config/field_rules.h"
#include "proto/config/training_config.h"
#include "tests/testing/status_matchers.h"

namespace esper::client {
namespace {

using ::esper::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

v1::TrainingConfig ConfigOf(std::vector<std::string> assignments,
                            const std::string& profile = "") {
  config::ConfigSources sources;
  sources.profile = profile;
  sources.assignments = std::move(assignments);
  return config::LoadConfig(sources).value();
}

TEST(TrainerSettingsTest, TakesEverySectionOfTheConfiguration) {
  const auto settings = ToSettings(ConfigOf(
      {"run.task=text", "run.seed=7", "run.max_epochs=9", "run.minutes=2",
       "run.updates=30", "run.episodes_per_update=5",
       "run.collect_deadline=90s", "run.worker_lease=10s", "run.workers=3",
       "run.server_patience=1m", "run.checkpoint_every=4",
       "run.evaluation_every=6", "run.evaluation_episodes=2", "update.passes=2",
       "update.minibatches=3", "update.learning_rate=0.001",
       "update.max_grad_norm=1", "ppo.gamma=0.9", "environment.host_lr=0.5"}));
  ASSERT_OK(settings);
  EXPECT_EQ(settings->scheduler.root_seed, 7);
  EXPECT_EQ(settings->scheduler.lease, absl::Seconds(10));
  EXPECT_EQ(settings->service.task, "text");
  EXPECT_EQ(settings->service.max_epochs, 9);
  EXPECT_EQ(settings->service.lease, absl::Seconds(10));
  EXPECT_EQ(settings->service.options_json, R"({"host_lr":0.5})");
  const Trainer::Options& trainer = settings->trainer;
  EXPECT_EQ(trainer.max_time, absl::Minutes(2));
  EXPECT_EQ(trainer.max_updates, 30);
  EXPECT_EQ(trainer.episodes_per_update, 5);
  EXPECT_EQ(trainer.min_episodes, 3);
  EXPECT_EQ(trainer.collect_deadline, absl::Seconds(90));
  EXPECT_EQ(trainer.workers, 3);
  EXPECT_EQ(trainer.server_patience, absl::Minutes(1));
  EXPECT_EQ(trainer.checkpoint_every, 4);
  EXPECT_EQ(trainer.evaluation_every, 6);
  EXPECT_EQ(trainer.evaluation_episodes, 2);
  EXPECT_EQ(trainer.update.passes, 2);
  EXPECT_EQ(trainer.update.minibatches, 3);
  EXPECT_EQ(trainer.update.seed, 7);
  EXPECT_EQ(trainer.update.learning_rate, 0.001);
  EXPECT_EQ(trainer.update.max_grad_norm, 1);
  EXPECT_EQ(trainer.update.loss.gamma(), 0.9);
  EXPECT_EQ(trainer.update.loss.total_updates(), 30);
  EXPECT_EQ(trainer.update.profile, v1::PROFILE_DEFAULT);
}

TEST(TrainerSettingsTest, RefusesAnUnknownTask) {
  EXPECT_THAT(ToSettings(ConfigOf({"run.task=imagenet"})),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(TrainerSettingsTest, WorkersGetTheProfileAndWhatIsSet) {
  EXPECT_EQ(EnvironmentOptions(ConfigOf({})), "");
  EXPECT_EQ(EnvironmentOptions(ConfigOf({}, "upstream")),
            R"({"profile":"upstream"})");
  EXPECT_EQ(
      EnvironmentOptions(ConfigOf({"environment.profile=default"}, "upstream")),
      "");
  // JSON has no infinity, and options say null.
  EXPECT_EQ(EnvironmentOptions(ConfigOf(
                {"environment.reward.prune_attribution_cap=Infinity"})),
            R"({"reward":{"prune_attribution_cap":null}})");
}

// Every option of the environment is a field here, and the other way round.
TEST(TrainerSettingsTest, TheEnvironmentKnowsEveryField) {
  const auto* type = v1::EnvironmentConfig::descriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    const std::string text = "{\"" + type->field(i)->name() + "\": []}";
    const auto refused = env::EpisodeConfigFromJson(text, env::EpisodeConfig());
    ASSERT_FALSE(refused.ok()) << text;
    EXPECT_THAT(std::string(refused.status().message()),
                Not(HasSubstr("unknown")))
        << text;
  }
}

TEST(TrainerSettingsTest, TheRewardHasTheSameFields) {
  for (const env::RewardConfig& reward :
       {env::RewardConfig(), env::RewardConfig::Upstream()}) {
    nlohmann::json json = env::RewardConfigToJson(reward);
    EXPECT_EQ(json.size(), v1::RewardConfig::descriptor()->field_count());
    for (auto& value : json) {
      if (value.is_null()) value = "Infinity";
    }
    v1::RewardConfig message;
    ASSERT_OK(config::MergeJson(config::Json(json), &message));
    EXPECT_OK(config::CheckFields(message, "reward"));
    EXPECT_EQ(nlohmann::json(config::ToJson(message)), json);
  }
}

// Choices have one name on both sides.
TEST(TrainerSettingsTest, TheEnvironmentKnowsEveryChoice) {
  const auto* type = v1::EnvironmentConfig::descriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    const auto* choices = type->field(i)->enum_type();
    for (int v = 0; choices != nullptr && v < choices->value_count(); ++v) {
      if (choices->value(v)->number() == 0) continue;
      const std::string text = "{\"" + type->field(i)->name() + "\": \"" +
                               config::ChoiceName(*choices->value(v)) + "\"}";
      // Without a task it cannot be valid; with a wrong choice it says so.
      const auto refused =
          env::EpisodeConfigFromJson(text, env::EpisodeConfig());
      ASSERT_FALSE(refused.ok()) << text;
      EXPECT_THAT(std::string(refused.status().message()), HasSubstr("no task"))
          << text;
    }
  }
}

}  // namespace
}  // namespace esper::client
