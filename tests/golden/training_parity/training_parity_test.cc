#include <filesystem>
#include <fstream>
#include <string>

#include "gtest/gtest.h"
#include "tests/golden/training_parity/cases.h"

namespace esper::testing {
namespace {

constexpr char kDirectory[] = "tests/golden/training";

class TrainingParityTest : public ::testing::TestWithParam<std::string> {};

TEST_P(TrainingParityTest, AgreesWithReferenceVectors) {
  GoldenReport report;
  CheckFile(kDirectory, GetParam(), &report);
  for (const std::string& failure : report.failures()) {
    ADD_FAILURE() << failure;
  }
  for (const std::string& skip : report.skips()) ADD_FAILURE() << skip;
  EXPECT_GT(report.passed(), 0);
}

std::vector<std::string> Files() {
  std::vector<std::string> files;
  for (const auto& [name, check] : JsonChecks()) files.push_back(name);
  return files;
}

INSTANTIATE_TEST_SUITE_P(Files, TrainingParityTest,
                         ::testing::ValuesIn(Files()),
                         [](const ::testing::TestParamInfo<std::string>& info) {
                           return info.param.substr(0, info.param.find('.'));
                         });

TEST(CheckDirectoryTest, FailsOnADirectoryWithoutReferenceVectors) {
  GoldenReport report;
  CheckDirectory(::testing::TempDir() + "/absent", &report);
  EXPECT_EQ(report.failures().size(), 1);
}

TEST(CheckFileTest, FailsOnACorruptFileAndOnAChangedNumber) {
  const std::string directory = ::testing::TempDir();
  std::ofstream(directory + "/rewards_sparse.json") << "{\"cases\": [";
  GoldenReport corrupt;
  CheckFile(directory, "rewards_sparse.json", &corrupt);
  EXPECT_EQ(corrupt.failures().size(), 1);

  std::ifstream stream(std::string(kDirectory) + "/rewards_shaped.json");
  auto file = nlohmann::json::parse(stream);
  auto& expected = file.at("cases").at(0).at("expected");
  expected.at("reward") = expected.at("reward").get<double>() + 1e-6;
  GoldenReport changed;
  CheckRewards("changed", file, &changed);
  EXPECT_EQ(changed.failures().size(), 1);
}

GoldenJson Load(const std::string& name) {
  std::ifstream stream(std::string(kDirectory) + "/" + name);
  return {kDirectory, name, nlohmann::json::parse(stream)};
}

TEST(CheckFileTest, ChangedNumbersOfTrainingAreNoticed) {
  // One number of one case; the other cases still pass.
  const auto expect_one_failure = [](const GoldenJson& file) {
    GoldenReport report;
    JsonChecks().at(file.name)(file, &report);
    EXPECT_EQ(report.failures().size(), 1) << file.name;
    EXPECT_GT(report.passed(), 0) << file.name;
  };
  const auto raise = [](nlohmann::json& number, double by) {
    number = GoldenNumber(number) + by;
  };
  GoldenJson file = Load("ppo_schedules.json");
  raise(file.content.at("schedules").at(3).at("value"), 1e-6);
  expect_one_failure(file);
  file = Load("ppo_losses.json");
  raise(file.content.at("cases").at(1).at("expected").at("value_loss"), 1e-3);
  expect_one_failure(file);
  file = Load("contribution_aux.json");
  raise(file.content.at("cases").at(0).at("loss"), 1e-2);
  expect_one_failure(file);
  file = Load("normalizers.json");
  raise(file.content.at("reward").at(0).at("steps").at(2).at("m2"), 1e-6);
  expect_one_failure(file);
  file = Load("environment.json");
  raise(file.content.at("gradient_ema").at(4).at("norm_drift"), 1e-2);
  expect_one_failure(file);
}

TEST(CheckDirectoryTest, TensorsWithoutTheirCasesAreAFailure) {
  const std::string directory = ::testing::TempDir() + "/lonely";
  std::filesystem::create_directories(directory);
  std::ofstream(directory + "/ppo_losses.safetensors") << "x";
  GoldenReport report;
  CheckDirectory(directory, &report);
  ASSERT_GE(report.failures().size(), 1u);
  EXPECT_NE(report.failures()[0].find("ppo_losses.safetensors"),
            std::string::npos);
}

}  // namespace
}  // namespace esper::testing
