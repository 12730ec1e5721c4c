#include "core/host/cnn_host.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>

#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/host/layers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::host {
namespace {

using ::esper::testing::Refused;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::shared_ptr<CnnHost> MakeHost(const CnnHostOptions& options,
                                  uint64_t seed = 1) {
  return CnnHost::Create(options, seed).value();
}

CnnHostOptions Grey() {
  CnnHostOptions options;
  options.in_channels = 1;
  options.base_channels = 8;
  return options;
}

at::Tensor Random(at::IntArrayRef shape, uint64_t seed = 99) {
  return at::randn(shape, MakeGenerator(seed));
}

int64_t CountByHand(const CnnHost& host) {
  int64_t count = 0;
  for (const at::Tensor& parameter : host.parameters()) {
    count += parameter.numel();
  }
  return count;
}

TEST(CnnHostTest, ParameterCountsAreThoseOfThePresets) {
  const std::map<std::string, std::pair<int64_t, size_t>> expected = {
      {"cifar_baseline", {6418, 6}},
      {"cifar_multichannel", {6418, 6}},
      {"cifar_postpool", {24346, 6}},
      {"cifar_highres", {24346, 6}},
      {"cifar_scale", {99922, 10}},
      {"cifar_deep_multichannel", {99922, 10}},
      {"cifar_impaired", {77, 6}},
      {"cifar_minimal", {164, 3}},
      {"cifar_deep_impaired", {1140, 10}},
  };
  ASSERT_EQ(CnnHostPresets().size(), expected.size());
  for (const auto& [name, options] : CnnHostPresets()) {
    const auto host = MakeHost(options);
    const auto& [parameters, slots] = expected.at(name);
    EXPECT_EQ(CnnHostParameterCount(options), parameters) << name;
    EXPECT_EQ(CountByHand(*host), parameters) << name;
    EXPECT_EQ(host->injection_specs().size(), slots) << name;
  }
  EXPECT_EQ(CountByHand(*MakeHost(CnnHostOptions())), 94762);
  EXPECT_EQ(CnnHostParameterCount(CnnHostOptions()), 94762);
  EXPECT_EQ(CountByHand(*MakeHost(Grey())), CnnHostParameterCount(Grey()));
  EXPECT_EQ(CnnHostParameterCount(Grey()), 6418 - 2 * 9 * 8);
}

TEST(CnnHostTest, PointsHaveActionOrderAndExecutionOrder) {
  CnnHostOptions options;
  options.pool_layers = 2;
  const auto host = MakeHost(options);
  std::vector<std::string> action_order;
  for (const slot::InjectionSpec& spec : host->injection_specs()) {
    EXPECT_TRUE(spec.Validate().ok()) << spec.slot_id;
    EXPECT_EQ(spec.order, static_cast<int64_t>(action_order.size()));
    EXPECT_EQ(spec.channels, 32 << spec.column);
    EXPECT_EQ(host->segment_channels().at(spec.slot_id), spec.channels);
    EXPECT_EQ(spec.layer_begin, spec.column);
    EXPECT_EQ(spec.layer_end, spec.column + 1);
    EXPECT_EQ(spec.surface, spec.row == 0 ? slot::SurfaceType::kPrePool
                                          : slot::SurfaceType::kPostPool);
    EXPECT_DOUBLE_EQ(spec.position, (2 * spec.column + 1 + spec.row) / 6.0);
    action_order.push_back(spec.slot_id);
  }
  EXPECT_THAT(action_order,
              ElementsAre("r0c0", "r0c1", "r0c2", "r1c0", "r1c1"));
  EXPECT_THAT(host->execution_order(),
              ElementsAre("r0c0", "r1c0", "r0c1", "r1c1", "r0c2"));
  EXPECT_EQ(host->topology(), slot::Topology::kCnn);
}

TEST(CnnHostTest, ForwardEqualsEveryPathThroughItsSegments) {
  for (const int64_t pools : {0, 2, 3}) {
    CnnHostOptions options = Grey();
    options.pool_layers = pools;
    const auto host = MakeHost(options);
    host->eval();
    const at::Tensor x = Random({3, 1, 9, 11});
    const at::Tensor whole = host->Forward(x);
    EXPECT_EQ(whole.sizes(), at::IntArrayRef({3, 10}));
    const std::vector<std::string>& order = host->execution_order();
    for (size_t i = 0; i < order.size(); ++i) {
      const at::Tensor to_i = host->ForwardToSegment(order[i], x);
      EXPECT_EQ(to_i.size(1), host->segment_channels().at(order[i]));
      EXPECT_TRUE(at::equal(host->ForwardFromSegment(order[i], to_i), whole));
      for (size_t j = i + 1; j < order.size(); ++j) {
        const at::Tensor to_j =
            host->ForwardToSegment(order[j], to_i, order[i]);
        EXPECT_TRUE(at::equal(to_j, host->ForwardToSegment(order[j], x)));
      }
    }
  }
}

TEST(CnnHostTest, SegmentsDoNotWriteIntoTheirInput) {
  const auto host = MakeHost(Grey());
  const at::Tensor x = Random({2, 1, 8, 8});
  const at::Tensor before = x.clone();
  const at::Tensor features = host->ForwardToSegment("r0c0", x);
  const at::Tensor copy = features.detach().clone();
  host->ForwardFromSegment("r0c0", features);
  EXPECT_TRUE(at::equal(x, before));
  EXPECT_TRUE(at::equal(features, copy));
}

TEST(CnnHostTest, PoolsHalveOnlyTheirBlocks) {
  CnnHostOptions options = Grey();
  options.pool_layers = 1;
  const auto host = MakeHost(options);
  const at::Tensor x = Random({1, 1, 8, 8});
  EXPECT_EQ(host->ForwardToSegment("r0c0", x).size(2), 8);
  EXPECT_EQ(host->ForwardToSegment("r1c0", x).size(2), 4);
  EXPECT_EQ(host->ForwardToSegment("r0c2", x).size(2), 4);
}

TEST(CnnHostTest, RefusesUnknownAndBackwardSegments) {
  const auto host = MakeHost(Grey());
  const at::Tensor x = Random({1, 1, 8, 8});
  try {
    host->ForwardToSegment("r7c0", x);
    FAIL() << "accepted an unknown segment";
  } catch (const InvalidArgumentError& error) {
    EXPECT_EQ(error.reason(), "UNKNOWN_SEGMENT");
    EXPECT_THAT(error.what(), HasSubstr("r0c0, r1c0"));
  }
  const at::Tensor at_c1 = host->ForwardToSegment("r0c1", x);
  for (const char* target : {"r0c1", "r1c0"}) {
    try {
      host->ForwardToSegment(target, at_c1, "r0c1");
      FAIL() << "went back to " << target;
    } catch (const InvalidArgumentError& error) {
      EXPECT_EQ(error.reason(), "BAD_SEGMENT_ORDER");
    }
  }
}

TEST(CnnHostTest, RefusesInputsOfWrongShape) {
  const auto host = MakeHost(Grey());
  EXPECT_THROW(host->Forward(Random({1, 3, 8, 8})), ShapeError);
  EXPECT_THROW(host->Forward(Random({1, 8, 8})), ShapeError);
  EXPECT_THROW(host->Forward(Random({1, 1, 8, 7})), ShapeError);
  EXPECT_THROW(host->Forward(at::Tensor()), ShapeError);
  EXPECT_THROW(host->Forward(Random({1, 1, 8, 8}).to(at::kLong)), ShapeError);
  EXPECT_THROW(host->ForwardFromSegment("r0c1", Random({1, 8, 8, 8})),
               ShapeError);
}

TEST(CnnHostTest, RefusesOptionsOutsideTheirRange) {
  const auto refuses = [](auto change, const char* field) {
    CnnHostOptions options;
    change(options);
    const auto host = CnnHost::Create(options, 0);
    EXPECT_THAT(host,
                Refused(absl::StatusCode::kInvalidArgument, "BAD_HOST_OPTION"));
    EXPECT_EQ(DetailOf(host.status())->field, field);
  };
  refuses([](auto& o) { o.n_blocks = 1; }, "n_blocks");
  refuses([](auto& o) { o.in_channels = 0; }, "in_channels");
  refuses([](auto& o) { o.num_classes = 0; }, "num_classes");
  refuses([](auto& o) { o.base_channels = 0; }, "base_channels");
  refuses([](auto& o) { o.pool_layers = 4; }, "pool_layers");
  refuses([](auto& o) { o.pool_layers = -1; }, "pool_layers");
  refuses([](auto& o) { o.kernel = 2; }, "kernel");
}

TEST(CnnHostTest, WeightsComeFromTheSeedAndNoGlobalGenerator) {
  const at::Generator& global = at::detail::getDefaultCPUGenerator();
  const at::Tensor state = global.get_state();
  const auto a = MakeHost(CnnHostOptions(), 5);
  const auto b = MakeHost(CnnHostOptions(), 5);
  const auto c = MakeHost(CnnHostOptions(), 6);
  EXPECT_TRUE(at::equal(global.get_state(), state));
  for (const auto& item : a->named_parameters()) {
    const at::Tensor& other = b->named_parameters()[item.key()];
    EXPECT_TRUE(at::equal(item.value(), other)) << item.key();
  }
  EXPECT_FALSE(at::equal(a->parameters()[0], c->parameters()[0]));
}

TEST(CnnHostTest, WeightsHaveTheFrameworksDefaultDistribution) {
  const auto host = MakeHost(CnnHostOptions());
  const std::map<std::string, double> fan_in = {
      {"blocks.0.conv.weight", 27},
      {"blocks.1.conv.weight", 9 * 32},
      {"blocks.2.conv.weight", 9 * 64},
      {"classifier.weight", 128},
  };
  for (const auto& [name, fan] : fan_in) {
    const at::Tensor weight = host->named_parameters()[name].detach();
    const double bound = 1 / std::sqrt(fan);
    EXPECT_LE(weight.abs().max().item<double>(), bound) << name;
    EXPECT_GE(weight.abs().max().item<double>(), 0.98 * bound) << name;
    EXPECT_NEAR(weight.std().item<double>(), bound / std::sqrt(3.0),
                0.06 * bound)
        << name;
    EXPECT_NEAR(weight.mean().item<double>(), 0, 0.1 * bound) << name;
  }
  for (const auto& item : host->named_parameters()) {
    if (item.key().find("bn.weight") != std::string::npos) {
      EXPECT_EQ(item.value().sum().item<double>(), item.value().numel());
    }
  }
}

TEST(CnnHostTest, MemoryFormatDoesNotChangeTheResult) {
  CnnHostOptions options;
  options.base_channels = 8;
  const auto last = MakeHost(options);
  options.channels_last = false;
  const auto first = MakeHost(options);
  last->eval();
  first->eval();
  const at::Tensor x = Random({4, 3, 16, 16});
  EXPECT_TRUE(at::allclose(last->Forward(x), first->Forward(x), 1e-4, 1e-5));
  EXPECT_TRUE(last->ForwardToSegment("r0c1", x).is_contiguous(
      at::MemoryFormat::ChannelsLast));
  EXPECT_TRUE(first->ForwardToSegment("r0c1", x).is_contiguous());
}

TEST(CnnHostTest, RunningStatisticsMoveInTrainingModeOnly) {
  const auto host = MakeHost(Grey());
  const at::Tensor x = Random({8, 1, 8, 8});
  const at::Tensor mean = host->named_buffers()["blocks.0.bn.running_mean"];
  const at::Tensor batches =
      host->named_buffers()["blocks.0.bn.num_batches_tracked"];
  host->eval();
  host->Forward(x);
  EXPECT_EQ(mean.abs().sum().item<double>(), 0);
  EXPECT_EQ(batches.item<int64_t>(), 0);
  host->train();
  host->Forward(x);
  EXPECT_GT(mean.abs().sum().item<double>(), 0);
  EXPECT_EQ(batches.item<int64_t>(), 1);
}

TEST(CnnHostTest, HostMadeUnderInferenceModeCanBeTrained) {
  std::shared_ptr<CnnHost> host;
  {
    c10::InferenceMode inference;
    host = MakeHost(Grey());
  }
  host->Forward(Random({4, 1, 8, 8})).sum().backward();
  for (const at::Tensor& parameter : host->parameters()) {
    EXPECT_TRUE(parameter.grad().defined());
  }
}

}  // namespace
}  // namespace esper::host
