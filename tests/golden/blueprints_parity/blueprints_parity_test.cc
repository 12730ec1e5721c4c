#include <ATen/Parallel.h>

#include <map>
#include <set>
#include <string>

#include "core/host/cnn_blueprints.h"
#include "gtest/gtest.h"
#include "tests/golden/blueprints_parity/cases.h"

namespace esper::testing {
namespace {

const bool kOneThread = (at::set_num_threads(1), true);

constexpr char kDirectory[] = "tests/golden/blueprints";

tensor::Safetensors Load(const std::string& name) {
  return tensor::ReadSafetensors(std::string(kDirectory) + "/" + name).value();
}

TEST(BlueprintsParityTest, AgreesWithTheIndependentExpression) {
  GoldenReport report;
  CheckBlueprintDirectory(kDirectory, &report);
  for (const std::string& failure : report.failures()) {
    ADD_FAILURE() << failure;
  }
  EXPECT_GT(report.passed(), 250);
  EXPECT_TRUE(report.skips().empty());
}

// No blueprint, operator or stage is left out.
TEST(BlueprintsParityTest, VectorsCoverBlueprintsOperatorsAndStages) {
  for (const auto topology :
       {slot::Topology::kCnn, slot::Topology::kTransformer}) {
    const Vectors vectors(
        Load(std::string(slot::TopologyName(topology)) + "_slots.safetensors"));
    std::map<std::string, std::set<std::string>> covered;
    for (const auto& entry : vectors.description().at("cases")) {
      for (const std::string stage : entry.at("stages")) {
        const bool straight_through = entry.at("alpha") == 0;
        covered[entry.at("blueprint")].insert(
            entry.at("algorithm").get<std::string>() + stage +
            (straight_through ? "0" : ""));
      }
    }
    for (const slot::Blueprint* blueprint :
         host::DefaultBlueprints().List(topology)) {
      // 3 operators; TRAINING with and without alpha, three later stages.
      EXPECT_EQ(covered[blueprint->name].size(), 15) << blueprint->name;
    }
    EXPECT_EQ(covered.size(), 8);
  }
}

TEST(BlueprintsParityTest, FailsOnADirectoryWithoutVectors) {
  GoldenReport report;
  CheckBlueprintDirectory(::testing::TempDir() + "/absent", &report);
  EXPECT_EQ(report.failures().size(), 1);
}

int FailuresWithChange(const std::string& file, const std::string& tensor) {
  tensor::Safetensors changed = Load(file);
  for (auto& [name, value] : changed.tensors) {
    if (name == tensor) value.view(-1)[0] += 1e-3;
  }
  Vectors vectors(changed);
  GoldenReport report;
  CheckVectors(file, vectors, &report);
  return static_cast<int>(report.failures().size());
}

TEST(BlueprintsParityTest, NoticesAChangedNumber) {
  EXPECT_EQ(FailuresWithChange("cnn_slots.safetensors",
                               "conv_light.MULTIPLY.blending.out"),
            1);
  EXPECT_EQ(FailuresWithChange("transformer_slots.safetensors",
                               "lora.ADD.training.grad.seed.up.weight"),
            1);
  // Two stages share these numbers.
  EXPECT_EQ(FailuresWithChange("transformer_slots.safetensors",
                               "attention.GATE.full.grad.host"),
            2);
  EXPECT_EQ(FailuresWithChange("cnn_hosts.safetensors",
                               "grown.statistics.blocks.1.bn.running_var"),
            1);
  EXPECT_EQ(FailuresWithChange("transformer_hosts.safetensors",
                               "coupled.grad.tok_emb.weight"),
            1);
}

TEST(BlueprintsParityTest, NoticesATensorThatNothingReads) {
  tensor::Safetensors more = Load("cnn_hosts.safetensors");
  more.tensors.emplace_back("three_pools.grad.extra", more.tensors[0].second);
  Vectors vectors(more);
  GoldenReport report;
  CheckVectors("cnn_hosts.safetensors", vectors, &report);
  EXPECT_EQ(report.failures().size(), 1);
}

}  // namespace
}  // namespace esper::testing
