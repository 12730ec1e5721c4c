#include "core/slot/gate_network.h"

#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>

#include <string>

#include "core/error.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::slot {
namespace {

using ::esper::testing::StatusIs;

std::shared_ptr<GateNetwork> Gate(int64_t channels,
                                  Topology topology = Topology::kCnn) {
  GateNetwork::Options options;
  options.channels = channels;
  options.topology = topology;
  return GateNetwork::Create(options).value();
}

TEST(GateNetworkTest, HasTheFormulasParameterCount) {
  for (const int64_t channels : {1, 8, 32, 64, 128}) {
    const auto gate = Gate(channels);
    const int64_t m = std::max<int64_t>(8, channels / 4);
    int64_t count = 0;
    for (const at::Tensor& p : gate->parameters()) count += p.numel();
    EXPECT_EQ(gate->hidden(), m);
    EXPECT_EQ(count, m * (channels + 2) + 1);
  }
  EXPECT_TRUE(Gate(64)->named_parameters().contains("gate.0.weight"));
  EXPECT_TRUE(Gate(64)->named_parameters().contains("gate.2.bias"));
}

TEST(GateNetworkTest, GivesOneNumberPerSampleNearOneHalf) {
  const at::Tensor cnn = Gate(16)->forward(at::randn({3, 16, 4, 4}));
  EXPECT_EQ(cnn.sizes(), (std::vector<int64_t>{3, 1, 1, 1}));
  const at::Tensor sequence =
      Gate(16, Topology::kTransformer)->forward(at::randn({3, 5, 16}));
  EXPECT_EQ(sequence.sizes(), (std::vector<int64_t>{3, 1, 1}));
  for (const at::Tensor& gate : {cnn, sequence}) {
    EXPECT_GT(gate.min().item<double>(), 0.2);
    EXPECT_LT(gate.max().item<double>(), 0.8);
  }
}

TEST(GateNetworkTest, OpensNearlyForEveryInput) {
  const auto gate = Gate(16);
  gate->OpenNearly();
  const at::Tensor out = gate->forward(at::randn({4, 16, 2, 2}).mul(100));
  EXPECT_NEAR(out.min().item<double>(), 0.98201379, 1e-6);
  EXPECT_NEAR(out.max().item<double>(), 0.98201379, 1e-6);
  // Nearly open, not closed to learning.
  out.sum().backward();
  EXPECT_GT(gate->named_parameters()["gate.2.bias"].grad().abs().item<double>(),
            0);
}

TEST(GateNetworkTest, RefusesBadOptionsAndInputs) {
  GateNetwork::Options options;
  options.channels = 0;
  EXPECT_THAT(GateNetwork::Create(options),
              StatusIs(absl::StatusCode::kInvalidArgument));
  options.channels = 4;
  options.total_steps = 0;
  EXPECT_THAT(GateNetwork::Create(options),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THROW(Gate(4)->forward(at::randn({2, 5, 4})), ShapeError);
  EXPECT_THROW(Gate(4)->forward(at::randn({2, 5, 4, 4})), ShapeError);
  EXPECT_THROW(Gate(4)->forward(at::Tensor()), ShapeError);
  EXPECT_THROW(
      Gate(4, Topology::kTransformer)->forward(at::randn({2, 4, 1, 1})),
      ShapeError);
}

}  // namespace
}  // namespace esper::slot
