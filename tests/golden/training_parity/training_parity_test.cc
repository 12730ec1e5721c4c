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

}  // namespace
}  // namespace esper::testing
