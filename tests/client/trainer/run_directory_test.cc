#include "client/trainer/run_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <sstream>

#include "client/trainer/progress.h"
#include "tests/client/trainer/read_events.h"
#include "tests/client/trainer/testing_episodes.h"
#include "tests/testing/status_matchers.h"

namespace esper::client {
namespace {

using ::esper::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::MakeEpisode;
using Code = absl::StatusCode;

UpdateReport MakeUpdate(int64_t version) {
  UpdateReport update;
  update.policy_version = version;
  update.published = true;
  update.transitions = 4;
  update.passes = 3;
  update.optimizer_steps = 3;
  update.ratio_check_max = 1e-5 * static_cast<double>(version);
  update.weights_change_l2 = 0.5;
  update.metrics = {{"policy", -0.1}};
  return update;
}

class RunDirectoryTest : public ::testing::Test {
 protected:
  RunDirectoryTest() {
    std::string pattern = ::testing::TempDir() + "/run_directory_XXXXXX";
    path_ = mkdtemp(pattern.data());
  }
  ~RunDirectoryTest() override { std::filesystem::remove_all(path_); }

  std::string Read(const std::string& name) const {
    std::ifstream file(path_ + "/" + name);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }
  int Lines(const std::string& name) const {
    const std::string text = Read(name);
    return static_cast<int>(std::count(text.begin(), text.end(), '\n'));
  }
  nlohmann::json Summary() const {
    return nlohmann::json::parse(Read("summary.json"));
  }

  std::string path_;
  const nlohmann::ordered_json config_ = {{"seed", 42}};
};

TEST_F(RunDirectoryTest, WritesEveryFileAsThingsHappen) {
  auto run = RunDirectory::Open(path_, false, config_);
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(Summary()["updates"], 0);
  EXPECT_EQ(Summary()["config"]["seed"], 42);
  ASSERT_TRUE((*run)->AddEpisode(MakeEpisode(0)).ok());
  ASSERT_TRUE((*run)->AddEpisode(MakeEpisode(1)).ok());
  ASSERT_TRUE((*run)->AddUpdate(MakeUpdate(2), 2, 1.5, 0.5).ok());
  const nlohmann::json summary = Summary();
  EXPECT_EQ(summary["updates"], 1);
  EXPECT_EQ(summary["env_steps"], 4);
  EXPECT_EQ(summary["transitions_trained"], 4);
  EXPECT_EQ(summary["seeds_germinated"], 4);
  EXPECT_EQ(summary["seeds_blended"], 2);
  EXPECT_EQ(summary["policy_version"], 2);
  EXPECT_EQ(summary["publishes"], 1);
  EXPECT_EQ(summary["weights_change_l2"], 0.5);
  EXPECT_EQ(summary["ratio_check_max"], 2e-5);
  EXPECT_EQ(summary["host_accuracy"], nlohmann::json({80, 81}));
  EXPECT_EQ(summary["finished"], false);
  EXPECT_EQ(Lines("episodes.csv"), 3);
  EXPECT_EQ(Lines("updates.csv"), 2);
  EXPECT_THAT(Read("updates.csv"), HasSubstr("\n1,2,2,4,3,3,0,0,2,80.5,70.5,"));
  std::istringstream steps(Read("steps.jsonl"));
  std::string line;
  ASSERT_TRUE(std::getline(steps, line));
  const auto json = nlohmann::json::parse(line);
  EXPECT_EQ(json["steps"][0]["slots"][0]["stage"], "BLENDING");
  EXPECT_TRUE(json["steps"][0]["slots"][0]["contribution"].is_null());
  EXPECT_TRUE(json["steps"][0]["slots"][0]["contribution_error"].is_null());
  EXPECT_EQ(json["steps"][0]["slots"][1]["contribution"], 1.5);
  EXPECT_EQ(json["steps"][0]["slots"][1]["contribution_error"], 0.25);
}

TEST_F(RunDirectoryTest, WritesWhatTensorBoardReads) {
  auto run = RunDirectory::Open(path_, false, config_);
  ASSERT_TRUE(run.ok()) << run.status();
  ASSERT_TRUE((*run)->AddEpisode(MakeEpisode(0)).ok());
  UpdateReport update = MakeUpdate(2);
  update.metrics["entropy.op"] = 0.25;
  update.metrics["value"] = std::nan("");
  update.anomalies = {"ratio_explosion", "entropy_low"};
  ASSERT_TRUE((*run)->AddUpdate(update, 1, 1.5, 0.5).ok());
  ASSERT_TRUE((*run)->AddEvaluation({MakeEpisode(0)}).ok());
  EXPECT_THAT(Read("updates.csv"),
              HasSubstr("\"ratio_explosion entropy_low\""));

  // The same of a run that went on for an update that its summary missed.
  const std::string summary = Read("summary.json");
  ASSERT_TRUE((*run)->AddUpdate(MakeUpdate(3), 1, 1, 1).ok());
  run->reset();
  std::ofstream(path_ + "/summary.json") << summary;
  ASSERT_TRUE(RunDirectory::Open(path_, true, config_).ok());

  const auto events = testing::ReadEvents(path_ + "/" + EventFile::kName);
  ASSERT_EQ(events.size(), 5);
  EXPECT_THAT(events[1]["values"]["config"].get<std::string>(),
              HasSubstr("\"seed\": 42"));
  const nlohmann::json& values = events[2]["values"];
  EXPECT_EQ(events[2]["step"], 1);
  EXPECT_EQ(values["return/mean"], 1.5);
  EXPECT_EQ(values["host_accuracy/mean"], 80);
  EXPECT_EQ(values["entropy/op"], 0.25);
  EXPECT_EQ(values["update/anomalies"], 2);
  EXPECT_EQ(values["progress/env_steps"], 2);
  EXPECT_FALSE(values.contains("metric/value"));
  EXPECT_TRUE(values.contains("metric/policy"));
  EXPECT_EQ(events[3]["values"]["evaluation/host_accuracy"], 80);
  EXPECT_EQ(events[4]["step"], 1);  // The configuration it went on with.
}

TEST_F(RunDirectoryTest, CountsUpdatesWithoutAStepApart) {
  auto run = RunDirectory::Open(path_, false, config_);
  ASSERT_TRUE(run.ok()) << run.status();
  UpdateReport stopped;
  stopped.kl_stopped = true;
  ASSERT_TRUE((*run)->AddUpdate(stopped, 1, 1, 1).ok());
  EXPECT_EQ((*run)->totals().updates, 0);
  EXPECT_EQ((*run)->totals().updates_without_step, 1);
  EXPECT_EQ((*run)->totals().policy_version, 1);
}

TEST_F(RunDirectoryTest, DoesNotTouchARunThatIsThere) {
  ASSERT_TRUE(RunDirectory::Open(path_, false, config_).ok());
  // Nothing has happened in it yet.
  auto run = RunDirectory::Open(path_, false, config_);
  ASSERT_TRUE(run.ok()) << run.status();
  ASSERT_TRUE((*run)->AddEpisode(MakeEpisode(0)).ok());
  EXPECT_THAT(RunDirectory::Open(path_, false, config_),
              StatusIs(Code::kFailedPrecondition));
  EXPECT_THAT(RunDirectory::Open(path_ + "/none", true, config_),
              StatusIs(Code::kNotFound));
  std::ofstream(path_ + "/summary.json") << "{\"updates\": 1";
  EXPECT_THAT(RunDirectory::Open(path_, true, config_),
              StatusIs(Code::kDataLoss));
}

TEST_F(RunDirectoryTest, ResumesAKilledRunWhereItsSummaryEnds) {
  {
    auto run = RunDirectory::Open(path_, false, config_);
    ASSERT_TRUE(run.ok()) << run.status();
    ASSERT_TRUE((*run)->AddEpisode(MakeEpisode(0)).ok());
    ASSERT_TRUE((*run)->AddUpdate(MakeUpdate(2), 1, 1, 1).ok());
  }
  // Killed after a line was written and before the summary was, and in the
  // middle of a line.
  std::ofstream(path_ + "/episodes.csv", std::ios::app) << "2,1,101,1\n";
  std::ofstream(path_ + "/steps.jsonl", std::ios::app) << "{\"episode\": 1, ";
  auto run = RunDirectory::Open(path_, true, config_);
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(Lines("episodes.csv"), 2);
  EXPECT_EQ(Lines("steps.jsonl"), 1);
  EXPECT_EQ((*run)->totals().next_episode, 1);
  EXPECT_EQ((*run)->totals().restarts, 1);
  ASSERT_TRUE((*run)->AddEpisode(MakeEpisode(1)).ok());
  ASSERT_TRUE((*run)->AddUpdate(MakeUpdate(3), 1, 1, 1).ok());
  EXPECT_EQ(Summary()["episodes"], 2);
  EXPECT_EQ(Summary()["updates"], 2);
  EXPECT_EQ(Summary()["policy_version"], 3);
  EXPECT_EQ(Summary()["publishes"], 2);
  EXPECT_EQ(Lines("episodes.csv"), 3);
  EXPECT_EQ(Lines("updates.csv"), 3);
  EXPECT_EQ(Lines("steps.jsonl"), 2);
}

TEST_F(RunDirectoryTest, VersionIsOnePlusPublishesAfterTheServerFellBack) {
  auto run = RunDirectory::Open(path_, false, config_);
  ASSERT_TRUE(run.ok()) << run.status();
  ASSERT_TRUE((*run)->AddUpdate(MakeUpdate(2), 1, 1, 1).ok());
  ASSERT_TRUE((*run)->AddUpdate(MakeUpdate(3), 1, 1, 1).ok());
  ASSERT_TRUE(
      (*run)->Change([](RunTotals& totals) { totals.SetVersion(2); }).ok());
  ASSERT_TRUE((*run)->AddUpdate(MakeUpdate(3), 1, 1, 1).ok());
  EXPECT_EQ(Summary()["policy_version"], 3);
  EXPECT_EQ(Summary()["publishes"], 2);
  EXPECT_EQ(Summary()["updates"], 3);
}

TEST(ProgressTest, ShowsTheRunInOneLine) {
  RunTotals totals;
  totals.Add(MakeEpisode(0));
  totals.SetVersion(4);
  RunPosition position;
  position.done = 0.5;
  position.round_episodes = 1;
  position.round_size = 8;
  position.episodes_per_second = 0.25;
  const std::string line = FormatProgress(totals, position);
  EXPECT_THAT(line, HasSubstr("[##########..........]  50%"));
  EXPECT_THAT(line, HasSubstr("version 4  round 1/8  episodes 1 (0.25/s)"));
  EXPECT_THAT(line, HasSubstr("host accuracy 80.0% (70.0% without seeds)"));
  position.done = -1;
  EXPECT_EQ(FormatProgress(RunTotals(), position).find('['), std::string::npos);
}

}  // namespace
}  // namespace esper::client
