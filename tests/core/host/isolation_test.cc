// What gradient the host gets through a slot, for every topology, stage and
// operator, against closed forms in float64.

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tanh.h>

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core/host/cnn_blueprints.h"
#include "core/host/layers.h"
#include "core/slot/forward_plan.h"
#include "core/slot/seed_module.h"
#include "core/slot/seed_slot.h"
#include "core/slot/slot_lifecycle.h"
#include "gtest/gtest.h"
#include "tests/core/slot/test_seeds.h"
#include "tests/testing/status_matchers.h"

namespace esper::host {
namespace {

using ::esper::testing::GrowTo;
using slot::AlphaAlgorithm;
using slot::SeedStage;
using slot::Topology;

const bool kOneThread = (at::set_num_threads(1), true);

constexpr int64_t kChannels = 6;

at::Tensor Random(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, MakeGenerator(seed)).to(at::kDouble);
}

slot::SlotLifecycle Lifecycle() {
  slot::SlotLifecycle::Options options;
  options.registry = &DefaultBlueprints();
  return esper::testing::MakeLifecycle(options);
}

std::shared_ptr<slot::SeedSlot> MakeSlot(Topology topology) {
  slot::SeedSlot::Options options;
  options.slot_id = "r0c0";
  options.channels = kChannels;
  options.topology = topology;
  options.dtype = at::kDouble;
  return slot::SeedSlot::Create(options).value();
}

// A slot at `stage` with a seed that changes its input. The transformer's is
// linear, s = x + U D x, so that its derivative is known.
std::shared_ptr<slot::SeedSlot> MakeGrown(Topology topology, SeedStage stage,
                                          AlphaAlgorithm algorithm) {
  auto slot = MakeSlot(topology);
  slot::GerminateRequest request;
  request.blueprint_id = topology == Topology::kCnn ? "conv_light" : "lora";
  request.algorithm = algorithm;
  if (algorithm == AlphaAlgorithm::kGate) request.blend_id = "gated";
  GrowTo(Lifecycle(), *slot, stage, request);
  at::NoGradGuard no_grad;
  uint64_t seed = 50;
  for (const at::Tensor& parameter : slot->SeedParameters()) {
    parameter.add_(Random(parameter.sizes(), seed++), /*alpha=*/0.3);
  }
  return slot;
}

at::Tensor Features(Topology topology) {
  const at::Tensor x = topology == Topology::kCnn
                           ? Random({2, kChannels, 4, 4}, 1)
                           : Random({3, 5, kChannels}, 1);
  return x.requires_grad_();
}

at::Tensor Parameter(const slot::SeedSlot& slot, const std::string& name) {
  return slot.named_parameters()[name].detach();
}

// J^T c for the seed's part U D of the linear seed.
at::Tensor LowRankTransposed(const slot::SeedSlot& slot, const at::Tensor& c) {
  return c.matmul(Parameter(slot, "seed.up.weight"))
      .matmul(Parameter(slot, "seed.down.weight"));
}

// The gate of each sample, and J^T c for a cotangent of its value.
struct Gate {
  explicit Gate(const slot::SeedSlot& slot, const at::Tensor& x)
      : w1(Parameter(slot, "gate.gate.0.weight")),
        w2(Parameter(slot, "gate.gate.2.weight")),
        hidden(at::linear(x.mean(x.dim() == 4 ? std::vector<int64_t>{2, 3}
                                              : std::vector<int64_t>{1}),
                          w1, Parameter(slot, "gate.gate.0.bias"))) {
    std::vector<int64_t> shape(x.dim(), 1);
    shape[0] = x.size(0);
    value = at::sigmoid(at::linear(at::relu(hidden), w2,
                                   Parameter(slot, "gate.gate.2.bias")))
                .reshape(shape);
  }

  // c: [B, 1, 1]. Returns [B, 1, d], the same for each of `length` positions.
  at::Tensor Transposed(const at::Tensor& c, int64_t length) const {
    const at::Tensor inner = c * value * (1 - value) / length;
    return (inner.flatten(1).matmul(w2) * (hidden > 0).to(at::kDouble))
        .matmul(w1)
        .unsqueeze(1);
  }

  at::Tensor w1, w2, hidden, value;
};

// dL/dh for cotangent g, in closed form.
at::Tensor ExpectedGradient(const slot::SeedSlot& slot,
                            AlphaAlgorithm algorithm, bool coupled,
                            const at::Tensor& h, const at::Tensor& g) {
  const double a = slot.alpha();
  at::NoGradGuard no_grad;
  const at::Tensor s = slot.plan()->seed->forward(h);
  switch (algorithm) {
    case AlphaAlgorithm::kAdd: {
      const at::Tensor direct = (1 - a) * g;
      if (!coupled) return direct;
      return direct + a * (g + LowRankTransposed(slot, g));
    }
    case AlphaAlgorithm::kMultiply: {
      const at::Tensor tanh = at::tanh(s - h);
      const at::Tensor direct = g * (1 + a * tanh);
      if (!coupled) return direct;
      return direct + LowRankTransposed(slot, g * h * a * (1 - tanh * tanh));
    }
    case AlphaAlgorithm::kGate: {
      const Gate gate(slot, h);
      const at::Tensor weight = a * gate.value;
      const at::Tensor direct = (1 - weight) * g;
      if (!coupled) return direct;
      const at::Tensor through_seed = weight * g;
      const at::Tensor through_gate = gate.Transposed(
          (g * a * (s - h)).sum(std::vector<int64_t>{1, 2}, true), h.size(1));
      return direct + through_seed + LowRankTransposed(slot, through_seed) +
             through_gate;
    }
  }
  return {};
}

void ExpectClose(const at::Tensor& actual, const at::Tensor& expected) {
  EXPECT_LE((actual - expected).abs().max().item<double>(), 1e-12);
}

class IsolationTest : public ::testing::TestWithParam<
                          std::tuple<Topology, SeedStage, AlphaAlgorithm>> {};

TEST_P(IsolationTest, HostGradientHasItsClosedForm) {
  const auto& [topology, stage, algorithm] = GetParam();
  const auto slot = MakeGrown(topology, stage, algorithm);
  const bool coupled =
      topology == Topology::kTransformer && stage != SeedStage::kTraining;
  EXPECT_EQ(slot->plan()->isolated, !coupled);

  // As the stage begins, and at an alpha that leaves no term out.
  for (const bool partial : {false, true}) {
    if (partial) {
      ASSERT_OK(Lifecycle().SetAlpha(*slot, 0.35).status());
    }
    const at::Tensor h = Features(topology);
    const at::Tensor y = slot->forward(h);
    const at::Tensor g = Random(y.sizes(), 9);
    slot->zero_grad(/*set_to_none=*/true);
    y.backward(g);
    const at::Tensor expected =
        ExpectedGradient(*slot, algorithm, coupled, h.detach(), g);
    ExpectClose(h.grad(), expected);
    if (stage == SeedStage::kTraining && !partial) {
      // Straight through: as if there were no seed, and the seed learns.
      EXPECT_TRUE(at::equal(y, h));
      EXPECT_TRUE(at::equal(h.grad(), g));
    }
    if (slot->alpha() > 0 || stage == SeedStage::kTraining) {
      for (const auto& item : slot->plan()->seed->named_parameters()) {
        EXPECT_GT(item.value().grad().abs().sum().item<double>(), 0)
            << item.key();
      }
    }
  }
}

// A seed that gives what another gave, whatever it reads.
class ConstantSeed : public slot::SeedModule {
 public:
  explicit ConstantSeed(at::Tensor output)
      : SeedModule("constant"), output_(std::move(output)) {}
  at::Tensor forward(const at::Tensor&) override { return output_; }

 private:
  const at::Tensor output_;
};

// Against the gradient that the host gets from a seed that nothing flows
// through: to the last bit where isolated.
TEST_P(IsolationTest, NothingAtAllFlowsThroughAnIsolatedSeed) {
  const auto& [topology, stage, algorithm] = GetParam();
  const auto slot = MakeGrown(topology, stage, algorithm);
  ASSERT_OK(Lifecycle().SetAlpha(*slot, 0.35).status());
  const at::Tensor h = Features(topology);
  const at::Tensor y = slot->forward(h);
  const at::Tensor g = Random(y.sizes(), 9);
  y.backward(g);
  const at::Tensor actual = h.grad().clone();

  slot::ForwardPlan closed = *slot->plan();
  {
    at::NoGradGuard no_grad;
    closed.seed = std::make_shared<ConstantSeed>(closed.seed->forward(h));
  }
  closed.isolated = true;  // The gate network reads its input as well.
  h.mutable_grad() = at::Tensor();
  slot::RunForwardPlan(closed, h, {}, /*training=*/true).backward(g);
  if (topology == Topology::kTransformer && stage != SeedStage::kTraining) {
    EXPECT_GT((actual - h.grad()).abs().max().item<double>(), 1e-3);
  } else {
    EXPECT_TRUE(at::equal(actual, h.grad()));
  }
}

TEST_P(IsolationTest, IsolationChangesNoValue) {
  const auto& [topology, stage, algorithm] = GetParam();
  const auto slot = MakeGrown(topology, stage, algorithm);
  ASSERT_OK(Lifecycle().SetAlpha(*slot, 0.35).status());
  const at::Tensor h = Features(topology);
  auto other = std::make_shared<slot::ForwardPlan>(*slot->plan());
  other->isolated = !other->isolated;
  EXPECT_TRUE(
      at::equal(slot::RunForwardPlan(*other, h, {}, true), slot->forward(h)));
}

std::string NameOf(
    const ::testing::TestParamInfo<IsolationTest::ParamType>& info) {
  const auto& [topology, stage, algorithm] = info.param;
  return std::string(slot::TopologyName(topology)) + "_" +
         slot::StageName(stage) + "_" + slot::AlphaAlgorithmName(algorithm);
}

INSTANTIATE_TEST_SUITE_P(
    All, IsolationTest,
    ::testing::Combine(
        ::testing::Values(Topology::kCnn, Topology::kTransformer),
        ::testing::Values(SeedStage::kTraining, SeedStage::kBlending,
                          SeedStage::kHolding, SeedStage::kFossilized),
        ::testing::Values(AlphaAlgorithm::kAdd, AlphaAlgorithm::kMultiply,
                          AlphaAlgorithm::kGate)),
    NameOf);

TEST(IsolationEdgeTest, SlotsThatTakeNoPartReturnTheHostsOwnTensor) {
  for (const Topology topology : {Topology::kCnn, Topology::kTransformer}) {
    const at::Tensor h = Features(topology);
    const auto lifecycle = Lifecycle();
    EXPECT_TRUE(MakeSlot(topology)->forward(h).is_same(h));
    for (const SeedStage stage : {SeedStage::kGerminated, SeedStage::kTraining,
                                  SeedStage::kBlending, SeedStage::kHolding}) {
      const auto slot = MakeGrown(topology, stage, AlphaAlgorithm::kAdd);
      if (stage == SeedStage::kGerminated) {
        EXPECT_TRUE(slot->forward(h).is_same(h));
      }
      ASSERT_OK(lifecycle.Prune(*slot, "policy_prune").status());
      for (int tick = 0; tick < 8; ++tick) {
        EXPECT_TRUE(slot->forward(h).is_same(h)) << tick;
        EXPECT_FALSE(slot->plan()->isolated);
        ASSERT_OK(lifecycle.Tick(*slot).status());
      }
      EXPECT_TRUE(slot->empty());
    }
  }
}

// A ramp down freezes the seed, yet the gradient goes on through it.
TEST(IsolationEdgeTest, FrozenSeedsLetTheHostsGradientThrough) {
  for (const Topology topology : {Topology::kCnn, Topology::kTransformer}) {
    const auto slot =
        MakeGrown(topology, SeedStage::kHolding, AlphaAlgorithm::kAdd);
    slot::PruneRequest request;
    request.steps = 4;
    ASSERT_OK(Lifecycle().SchedulePrune(*slot, request).status());
    ASSERT_OK(Lifecycle().Tick(*slot).status());
    const at::Tensor h = Features(topology);
    const at::Tensor y = slot->forward(h);
    const at::Tensor g = Random(y.sizes(), 9);
    slot->zero_grad(/*set_to_none=*/true);
    y.backward(g);
    ASSERT_GT(slot->alpha(), 0);
    ASSERT_LT(slot->alpha(), 1);
    ExpectClose(h.grad(), ExpectedGradient(*slot, AlphaAlgorithm::kAdd,
                                           topology == Topology::kTransformer,
                                           h.detach(), g));
    for (const at::Tensor& parameter : slot->SeedParameters()) {
      EXPECT_FALSE(parameter.grad().defined());
    }
  }
}

}  // namespace
}  // namespace esper::host
