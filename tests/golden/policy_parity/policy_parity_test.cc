#include <filesystem>
#include <string>

#include "core/policy/actions.h"
#include "core/tensor/safetensors.h"
#include "gtest/gtest.h"
#include "tests/golden/policy_parity/cases.h"

namespace esper::testing {
namespace {

constexpr char kDirectory[] = "tests/golden/policy";

// A directory of its own with one reference file in it.
std::string DirectoryWith(const std::string& name,
                          const tensor::Safetensors& file) {
  const std::string directory =
      ::testing::TempDir() + "/" +
      ::testing::UnitTest::GetInstance()->current_test_info()->name();
  std::filesystem::remove_all(directory);
  std::filesystem::create_directories(directory);
  EXPECT_TRUE(tensor::WriteSafetensors(directory + "/" + name, file.tensors,
                                       file.metadata)
                  .ok());
  return directory;
}

tensor::Safetensors Distribution() {
  return *tensor::ReadSafetensors(std::string(kDirectory) +
                                  "/distribution.safetensors");
}

TEST(PolicyParityTest, AgreesWithReferenceVectors) {
  GoldenReport report;
  CheckPolicyDirectory(kDirectory, &report);
  for (const std::string& failure : report.failures()) {
    ADD_FAILURE() << failure;
  }
  EXPECT_GT(report.passed(), 600);
  EXPECT_TRUE(report.skips().empty());
}

TEST(PolicyParityTest, FailsOnADirectoryWithoutReferenceVectors) {
  GoldenReport report;
  CheckPolicyDirectory(::testing::TempDir() + "/absent", &report);
  EXPECT_EQ(report.failures().size(), 1);
}

TEST(PolicyParityTest, NoticesAChangedNumber) {
  tensor::Safetensors file = Distribution();
  for (auto& [name, tensor] : file.tensors) {
    if (name == "a4.f15.log_probs") tensor[20][0] += 1e-3;
  }
  GoldenReport report;
  CheckPolicyDirectory(DirectoryWith("distribution.safetensors", file),
                       &report);
  EXPECT_EQ(report.failures().size(), 1);
}

TEST(PolicyParityTest, NoticesAnotherDecisionOfTheHeuristic) {
  tensor::Safetensors file = *tensor::ReadSafetensors(std::string(kDirectory) +
                                                      "/heuristic.safetensors");
  for (auto& [name, tensor] : file.tensors) {
    if (name == "in.seed.stage") tensor[2].fill_(policy::kStageGerminated);
  }
  GoldenReport report;
  CheckPolicyDirectory(DirectoryWith("heuristic.safetensors", file), &report);
  EXPECT_EQ(report.failures().size(), 1);
}

TEST(PolicyParityTest, NoticesMissingAndUnreadTensors) {
  tensor::Safetensors file = Distribution();
  for (auto& [name, tensor] : file.tensors) {
    if (name == "a4.f15.entropy") name = "a4.f15.other";
  }
  GoldenReport report;
  CheckPolicyDirectory(DirectoryWith("distribution.safetensors", file),
                       &report);
  // The case that misses it, and the file with a tensor that nobody read.
  EXPECT_EQ(report.failures().size(), 2);
}

TEST(PolicyParityTest, SkipsFilesOfAnotherKind) {
  GoldenReport report;
  const tensor::Safetensors file = Distribution();
  const std::string directory = DirectoryWith("distribution.safetensors", file);
  ASSERT_TRUE(
      tensor::WriteSafetensors(directory + "/other.safetensors", file.tensors)
          .ok());
  CheckPolicyDirectory(directory, &report);
  EXPECT_EQ(report.skips().size(), 1);
  EXPECT_TRUE(report.failures().empty());
}

}  // namespace
}  // namespace esper::testing
