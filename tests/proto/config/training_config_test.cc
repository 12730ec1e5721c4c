#include "proto/config/training_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/testing/status_matchers.h"

namespace esper::config {
namespace {

using ::esper::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Code = absl::StatusCode;

std::string WriteFile(const std::string& name, const std::string& text) {
  const std::string path = ::testing::TempDir() + "/" + name;
  std::ofstream(path) << text;
  return path;
}

std::string Refusal(const ConfigSources& sources) {
  const auto config = LoadConfig(sources);
  EXPECT_THAT(config, StatusIs(Code::kInvalidArgument));
  return std::string(config.status().message());
}

TEST(LoadConfigTest, LaterLayersWin) {
  ConfigSources sources;
  EXPECT_EQ(LoadConfig(sources)->ppo().entropy_coef(), 0.05);
  sources.preset = "cifar_scale";
  EXPECT_EQ(LoadConfig(sources)->ppo().entropy_coef(), 0.08);
  EXPECT_EQ(LoadConfig(sources)->run().task(), "cifar_scale");
  sources.file = WriteFile("layer.json", R"({"ppo": {"entropy_coef": 0.2}})");
  EXPECT_EQ(LoadConfig(sources)->ppo().entropy_coef(), 0.2);
  sources.assignments = {"ppo.entropy_coef=0.3", "ppo.entropy_coef=0.4"};
  const auto config = LoadConfig(sources);
  ASSERT_OK(config);
  EXPECT_EQ(config->ppo().entropy_coef(), 0.4);
  EXPECT_EQ(config->ppo().gamma(), 0.995);
  EXPECT_EQ(config->run().task(), "cifar_scale");
}

TEST(LoadConfigTest, EveryPresetLoadsUnderEveryProfile) {
  EXPECT_THAT(PresetNames(),
              ElementsAre("cifar_baseline", "cifar_baseline_stable",
                          "cifar_scale", "digits", "text", "tinystories"));
  for (const std::string& preset : PresetNames()) {
    for (const std::string profile : {"", "default", "upstream"}) {
      ConfigSources sources;
      sources.preset = preset;
      sources.profile = profile;
      EXPECT_OK(LoadConfig(sources)) << preset << " " << profile;
    }
  }
  ConfigSources unknown;
  unknown.preset = "cifar_scael";
  const auto refused = LoadConfig(unknown);
  EXPECT_THAT(refused, StatusIs(Code::kNotFound));
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("the nearest is cifar_scale"));
}

// What the specification says of them.
TEST(LoadConfigTest, PresetsHaveTheirNumbers) {
  ConfigSources sources;
  sources.preset = "cifar_baseline";
  EXPECT_EQ(LoadConfig(sources)->ppo().entropy_coef(), 0.1);
  sources.preset = "cifar_baseline_stable";
  const auto stable = LoadConfig(sources);
  ASSERT_OK(stable);
  EXPECT_EQ(stable->run().updates(), 200);
  EXPECT_EQ(stable->ppo().clip_ratio(), 0.1);
  EXPECT_EQ(stable->ppo().entropy_coef_start(), 0.06);
  EXPECT_EQ(stable->ppo().entropy_coef_end(), 0.03);
  EXPECT_EQ(stable->ppo().entropy_anneal_updates() *
                stable->run().episodes_per_update(),
            200);
  sources.preset = "tinystories";
  EXPECT_EQ(LoadConfig(sources)->environment().reward().sparse_reward_scale(),
            0.5);
}

TEST(LoadConfigTest, AWrittenConfigurationLoadsAsItself) {
  for (const std::string& preset : PresetNames()) {
    ConfigSources sources;
    sources.preset = preset;
    sources.profile = "upstream";
    sources.assignments = {"run.seed=18446744073709551615",
                           "environment.reward.prune_attribution_cap=Infinity",
                           "ppo.entropy_floors.op=0.123456789012345678"};
    const auto config = LoadConfig(sources);
    ASSERT_OK(config);
    ConfigSources saved;
    saved.file = WriteFile("saved.json", ToJson(*config).dump(2));
    const auto again = LoadConfig(saved);
    ASSERT_OK(again);
    EXPECT_EQ(ToJson(*again).dump(), ToJson(*config).dump());
  }
}

TEST(LoadConfigTest, OneProfileOnly) {
  ConfigSources sources;
  sources.file = WriteFile("profile.json", R"({"profile": "upstream"})");
  EXPECT_EQ(LoadConfig(sources)->update().passes(), 1);
  EXPECT_EQ(LoadConfig(sources)->policy().floor(), v1::FLOOR_MODE_UPSTREAM);
  sources.profile = "upstream";
  EXPECT_OK(LoadConfig(sources));
  sources.profile = "default";
  EXPECT_THAT(Refusal(sources), HasSubstr("--profile says \"default\", " +
                                          sources.file + " says \"upstream\""));
  sources = {};
  sources.profile = "usptream";
  EXPECT_THAT(Refusal(sources), HasSubstr("The nearest is upstream"));
}

TEST(LoadConfigTest, ErrorsNameTheirSource) {
  ConfigSources sources;
  sources.file = WriteFile("bad.json", R"({"ppo": {"gamma": 2}})");
  EXPECT_THAT(Refusal(sources), HasSubstr("bad.json: ppo.gamma = 2"));
  sources.file = WriteFile("bad.textproto", "ppo { gama: 2 }");
  EXPECT_THAT(Refusal(sources), HasSubstr("bad.textproto: line 1"));
  sources.file = WriteFile("good.textproto", "ppo { gamma: 0.5 }");
  EXPECT_EQ(LoadConfig(sources)->ppo().gamma(), 0.5);
  sources.file = "/no/such/file.json";
  EXPECT_THAT(LoadConfig(sources), StatusIs(Code::kNotFound));
  sources = {};
  for (const std::string assignment :
       {"ppo.gama=1", "ppo.gamma=2", "ppo.gamma", "=3", "ppo..gamma=1"}) {
    sources.assignments = {assignment};
    EXPECT_THAT(Refusal(sources), HasSubstr(assignment + ": "));
  }
}

TEST(LoadConfigTest, RefusesWhatCannotWorkTogether) {
  const auto refusal = [](std::vector<std::string> assignments) {
    ConfigSources sources;
    sources.assignments = std::move(assignments);
    return Refusal(sources);
  };
  EXPECT_THAT(refusal({"run.max_epochs=5000"}),
              HasSubstr("learner.max_episode_length = 4096"));
  EXPECT_THAT(refusal({"run.min_episodes=9"}),
              HasSubstr("run.episodes_per_update = 8"));
  EXPECT_THAT(refusal({"update.minibatches=5"}), HasSubstr("minibatches = 5"));
  EXPECT_THAT(refusal({"update.minibatches=0"}), HasSubstr("[1, inf)"));
  EXPECT_THAT(refusal({"ppo.value_clip=0.2"}), HasSubstr("ppo.value_clip"));
  EXPECT_THAT(refusal({"ppo.entropy_coef=0"}),
              HasSubstr("ppo.entropy_coef_min = 0.01"));
  EXPECT_THAT(refusal({"ppo.ratio_refuse=1e-4"}), HasSubstr("ratio_alarm"));
  EXPECT_THAT(
      refusal({"learner.reward_scaling=upstream", "update.minibatches=2"}),
      HasSubstr("whole batches"));
  ConfigSources fine;
  fine.assignments = {"update.minibatches=4", "ppo.entropy_coef=0",
                      "ppo.entropy_coef_min=0"};
  EXPECT_OK(LoadConfig(fine));
  fine.assignments = {"ppo.value_clip=0.2", "update.passes=1"};
  EXPECT_OK(LoadConfig(fine));
}

TEST(SplitAssignmentsTest, KeepsBracketsAndQuotesWhole) {
  EXPECT_THAT(
      SplitAssignments("a=1,b=[1,2],c={\"x\":1,\"y\":2},d=\"u,v\""),
      ElementsAre("a=1", "b=[1,2]", "c={\"x\":1,\"y\":2}", "d=\"u,v\""));
  EXPECT_TRUE(SplitAssignments("").empty());
  EXPECT_THAT(SplitAssignments("a=1,"), ElementsAre("a=1"));
}

TEST(ParseAssignmentTest, ValuesAreJsonOrText) {
  EXPECT_EQ(ParseAssignment("a.b=1.5")->dump(), R"({"a":{"b":1.5}})");
  EXPECT_EQ(ParseAssignment("a=text=more")->dump(), R"({"a":"text=more"})");
  EXPECT_EQ(ParseAssignment("a=[\"x\"]")->dump(), R"({"a":["x"]})");
}

}  // namespace
}  // namespace esper::config
