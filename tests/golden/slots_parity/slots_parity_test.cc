#include <fstream>
#include <string>

#include "gtest/gtest.h"
#include "tests/golden/slots_parity/cases.h"

namespace esper::testing {
namespace {

constexpr char kDirectory[] = "tests/golden/slots";

nlohmann::json Load(const std::string& name) {
  std::ifstream stream(std::string(kDirectory) + "/" + name);
  return nlohmann::json::parse(stream);
}

TEST(SlotsParityTest, AgreesWithReferenceVectors) {
  GoldenReport report;
  CheckDirectory(kDirectory, &report);
  for (const std::string& failure : report.failures()) {
    ADD_FAILURE() << failure;
  }
  EXPECT_GT(report.passed(), 400);
  EXPECT_TRUE(report.skips().empty()) << report.skips().front();
}

TEST(SlotsParityTest, FailsOnADirectoryWithoutReferenceVectors) {
  GoldenReport report;
  CheckDirectory(::testing::TempDir() + "/absent", &report);
  EXPECT_EQ(report.failures().size(), 1);
}

TEST(SlotsParityTest, NoticesAChangedNumberInEveryFile) {
  auto alpha = Load("alpha_controller.json");
  auto& progress = alpha.at("curve_progress").at(7).at("progress");
  progress = progress.get<double>() + 1e-6;
  GoldenReport alpha_report;
  CheckAlphaController(alpha, &alpha_report);
  EXPECT_EQ(alpha_report.failures().size(), 1);

  auto gates = Load("gates.json");
  gates.at("cases").at(0).at("expected").at("passed") = false;
  GoldenReport gates_report;
  CheckGates(gates, &gates_report);
  EXPECT_EQ(gates_report.failures().size(), 1);

  auto lifecycle = Load("lifecycle.json");
  lifecycle.at("runs").at(0).at("rows").at(1).at("state").at("epochs_total") =
      1;
  GoldenReport lifecycle_report;
  CheckLifecycle(lifecycle, &lifecycle_report);
  EXPECT_EQ(lifecycle_report.failures().size(), 1);

  auto blends = Load("blend_ops.json");
  blends.at("cases").at(1).at("op") = "multiply";
  GoldenReport blends_report;
  CheckBlends(blends, std::string(kDirectory) + "/blend_ops.safetensors",
              &blends_report);
  EXPECT_EQ(blends_report.failures().size(), 1);
}

}  // namespace
}  // namespace esper::testing
