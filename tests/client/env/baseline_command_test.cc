#include "client/env/baseline_command.h"

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "client/trainer/episode_scheduler.h"
#include "core/env/episode_runner.h"
#include "core/env/tasks.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace esper::client {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

std::shared_ptr<const env::Task> Digits() {
  const char* path = std::getenv("ESPER_DIGITS");
  return env::LoadTask("digits",
                       path != nullptr ? path : "external/digits/digits.csv.gz")
      .value();
}

BaselineCommand Command(const std::string& baseline) {
  BaselineCommand command;
  command.baseline = baseline;
  command.episodes = 2;
  command.max_epochs = 4;
  command.env_options = R"({"samples_per_epoch": 64, "val_samples": 32})";
  command.output = ::testing::TempDir() + "/" + baseline + ".jsonl";
  return command;
}

std::vector<json> Lines(const std::string& path) {
  std::vector<json> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    lines.push_back(json::parse(line));
  }
  return lines;
}

TEST(BaselineCommandTest, WritesALinePerEpisodeAndSumsThemUp) {
  const BaselineCommand command = Command("never_grow");
  const auto summary = RunBaseline(command, Digits());
  ASSERT_TRUE(summary.ok()) << summary.status();
  const std::vector<json> lines = Lines(command.output);
  ASSERT_EQ(lines.size(), 2u);
  double sum = 0;
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i]["episode"], i);
    EXPECT_EQ(lines[i]["seed"], EpisodeSeed(~uint64_t{42}, i));
    EXPECT_EQ(lines[i]["steps"], 4);
    EXPECT_EQ(lines[i]["seeds_germinated"], 0);
    EXPECT_EQ(lines[i]["accuracy"], lines[i]["accuracy_without_seeds"]);
    EXPECT_EQ(lines[i]["host_params"], lines[i]["total_params"]);
    EXPECT_GT(lines[i]["wall_seconds"], 0);
    // Only the end pays a host that is left alone.
    EXPECT_EQ(lines[i]["reward_parts"].size(), 1u);
    EXPECT_EQ(lines[i]["reward_parts"]["terminal"], lines[i]["return"]);
    sum += lines[i]["return"].get<double>();
  }
  const json result = json::parse(*summary);
  EXPECT_EQ(result["task"], "digits");
  ASSERT_EQ(result["results"].size(), 1u);
  EXPECT_NEAR(result["results"][0]["return"]["mean"], sum / 2, 1e-9);
  EXPECT_FALSE(result.contains("comparison"));
}

TEST(BaselineCommandTest, ComparesTwoSetsOfOptionsPairByPair) {
  BaselineCommand command = Command("random_legal");
  command.episodes = 5;
  command.threads = 2;
  // The same but for a terminal reward that is twice as high.
  command.env_options = R"({"samples_per_epoch": 64, "val_samples": 32,
      "reward": {"reward_mode": "simplified", "disable_terminal_reward": true}})";
  command.compare_env_options = R"({"samples_per_epoch": 64, "val_samples": 32,
      "reward": {"reward_mode": "simplified"}})";
  const auto summary = RunBaseline(command, Digits());
  ASSERT_TRUE(summary.ok()) << summary.status();
  const std::vector<json> lines = Lines(command.output);
  ASSERT_EQ(lines.size(), 10u);
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i]["options"], i % 2);
    EXPECT_EQ(lines[i]["seed"], lines[i - i % 2]["seed"]);
    EXPECT_EQ(lines[i]["accuracy"], lines[i - i % 2]["accuracy"]);
  }
  const json comparison = json::parse(*summary)["comparison"];
  EXPECT_EQ(comparison["return"]["higher"], "second");
  EXPECT_GT(comparison["return"]["difference"]["low"], 0);
  EXPECT_EQ(comparison["accuracy"]["higher"], "inconclusive");
  EXPECT_EQ(comparison["accuracy"]["difference"]["mean"], 0);
}

TEST(BaselineCommandTest, RefusesWhatCannotRun) {
  const auto refused = [](const BaselineCommand& command) {
    return RunBaseline(command, Digits()).status();
  };
  const auto invalid = absl::StatusCode::kInvalidArgument;
  const absl::Status unknown = refused(Command("heuristics"));
  EXPECT_EQ(unknown.code(), invalid);
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("\"heuristic\""));
  BaselineCommand command = Command("never_grow");
  command.episodes = 0;
  EXPECT_EQ(refused(command).code(), invalid);
  command = Command("never_grow");
  command.max_epochs = 0;
  EXPECT_EQ(refused(command).code(), invalid);
  command = Command("never_grow");
  command.env_options = "{\"rewrd\": {}}";
  EXPECT_EQ(refused(command).code(), invalid);
  command = Command("never_grow");
  command.compare_env_options = "{}";
  EXPECT_THAT(std::string(refused(command).message()),
              HasSubstr("at least 5 episodes"));
  command = Command("never_grow");
  command.output = "/no/such/folder/x";
  EXPECT_EQ(refused(command).code(), absl::StatusCode::kUnavailable);
}

TEST(BaselineCommandTest, EndsWhenToldToStop) {
  BaselineCommand command = Command("never_grow");
  command.episodes = 1000;
  EXPECT_EQ(RunBaseline(command, Digits(), [] { return true; }).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(Lines(command.output).size(), 1u);
}

TEST(EvaluationSeedTest, IsThatOfTheTrainersEvaluationRounds) {
  for (const uint64_t root : {uint64_t{0}, uint64_t{42}, ~uint64_t{7}}) {
    for (const uint64_t episode : {0, 1, 1000}) {
      EXPECT_EQ(env::EvaluationSeed(root, episode),
                EpisodeSeed(~root, episode));
    }
  }
}

}  // namespace
}  // namespace esper::client
