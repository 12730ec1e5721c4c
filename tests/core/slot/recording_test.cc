// That blends and slots can be recorded: traced into a graph of known
// operators, differentiated numerically, and what refuses to be traced.

#include "core/slot/recording.h"

#include <ATen/ExpandUtils.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/sin.h>
#include <ATen/record_function.h>
#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/runtime/interpreter.h>
#include <torch/library.h>

#include <cmath>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/slot/blend.h"
#include "core/slot/force_alpha.h"
#include "core/slot/slot_lifecycle.h"
#include "gtest/gtest.h"
#include "tests/core/slot/test_seeds.h"
#include "tests/testing/status_matchers.h"

namespace esper::slot {
namespace {

using at::Tensor;
using ::esper::testing::GrowTo;
using ::esper::testing::IsOk;
using ::esper::testing::MakeLifecycle;
using ::esper::testing::MakeSlot;
using ::esper::testing::Refused;
namespace tracer = torch::jit::tracer;

using Tensors = std::vector<Tensor>;
// From host, seed, alpha and gate.
struct Operator {
  std::string name;
  std::function<Tensor(const Tensors&)> run;
};

const std::vector<Operator>& Operators() {
  static const auto& operators = *new std::vector<Operator>{
      {"ste", [](const Tensors& t) { return SteForward(t[0], t[1]); }},
      {"add", [](const Tensors& t) { return BlendAdd(t[0], t[1], t[2]); }},
      {"isolation",
       [](const Tensors& t) { return BlendWithIsolation(t[0], t[1], t[2]); }},
      {"multiply, isolated",
       [](const Tensors& t) {
         return BlendMultiply(t[0], t[1], t[2], t[0].detach());
       }},
      {"multiply, coupled",
       [](const Tensors& t) { return BlendMultiply(t[0], t[1], t[2], t[0]); }},
      {"multiplier",
       [](const Tensors& t) { return MultiplyValveMultiplier(t[2], t[1]); }},
      {"gate",
       [](const Tensors& t) { return BlendGate(t[0], t[1], t[2], t[3]); }},
      {"effective alpha",
       [](const Tensors& t) { return GateEffectiveAlpha(t[2], t[3]); }},
  };
  return operators;
}

Tensors Inputs(at::ScalarType dtype = at::kDouble, double alpha = 0.6) {
  const auto wave = [&](double phase) {
    return at::sin(at::arange(24, at::kDouble).mul(0.7).add(phase))
        .reshape({2, 3, 2, 2})
        .to(dtype);
  };
  return {wave(0), wave(1), at::full({}, alpha, dtype),
          at::full({2, 1, 1, 1}, 0.4, dtype)};
}

// A function as a graph, recorded at `inputs`.
std::shared_ptr<torch::jit::Graph> Trace(
    const std::function<Tensor(const Tensors&)>& run, const Tensors& inputs) {
  const auto traced = tracer::trace(
      torch::jit::Stack(inputs.begin(), inputs.end()),
      [&](const torch::jit::Stack& values) {
        Tensors tensors;
        for (const c10::IValue& value : values) {
          tensors.push_back(value.toTensor());
        }
        return torch::jit::Stack{run(tensors)};
      },
      [](const Tensor&) { return ""; });
  return traced.first->graph;
}

Tensor Replay(const std::shared_ptr<torch::jit::Graph>& graph,
              const Tensors& inputs) {
  const torch::jit::Code code(graph, "traced");
  torch::jit::Stack stack(inputs.begin(), inputs.end());
  torch::jit::InterpreterState(code).run(stack);
  return stack.at(0).toTensor();
}

// Every operator that a function runs, down to the last one, forward and
// backward. Runs on this thread alone.
std::set<std::string> OperatorsOf(const std::function<void()>& run) {
  static thread_local std::set<std::string>* names = nullptr;
  std::set<std::string> ran;
  names = &ran;
  const auto note = [](const at::RecordFunction& function)
      -> std::unique_ptr<at::ObserverContext> {
    const std::string name = function.name();
    // The engine announces each node before the operators that it runs.
    if (name.rfind("autograd::engine::", 0) != 0) names->insert(name);
    return nullptr;
  };
  const auto handle = at::addThreadLocalCallback(
      at::RecordFunctionCallback(note).scopes({at::RecordScope::FUNCTION}));
  run();
  at::removeCallback(handle);
  names = nullptr;
  return ran;
}

// Operators that compute tensors from tensors, on the device. What turns a
// tensor into a number or decides what runs next is not among them:
// aten::item, aten::_local_scalar_dense, aten::is_nonzero, aten::equal,
// aten::nonzero, aten::masked_select, aten::unique.
const std::set<std::string>& Whitelist() {
  static const auto& names = *new std::set<std::string>{
      // Arithmetic and selection.
      "aten::abs", "aten::add", "aten::add_", "aten::addmm", "aten::all",
      "aten::bitwise_and", "aten::clamp", "aten::clamp_min", "aten::eq",
      "aten::ge", "aten::gt", "aten::isfinite", "aten::le", "aten::lerp",
      "aten::logical_and", "aten::logical_and_", "aten::lt", "aten::linear",
      "aten::matmul", "aten::mean", "aten::mm", "aten::mul", "aten::ne",
      "aten::neg", "aten::relu", "aten::rsub", "aten::sigmoid",
      "aten::sigmoid_backward", "aten::sub", "aten::sub_", "aten::sum",
      "aten::sum_to_size", "aten::tanh", "aten::tanh_backward",
      "aten::threshold_backward", "aten::where", "aten::div", "aten::div_",
      // Memory and shape.
      "aten::_to_copy", "aten::as_strided", "aten::clone", "aten::contiguous",
      "aten::copy_", "aten::detach", "aten::empty", "aten::empty_like",
      "aten::empty_strided", "aten::expand", "aten::fill_", "aten::flatten",
      "aten::full", "aten::full_like", "aten::new_empty_strided",
      "aten::ones_like", "aten::reshape", "aten::resolve_conj",
      "aten::scalar_tensor", "aten::squeeze", "aten::t", "aten::to",
      "aten::transpose", "aten::unsqueeze", "aten::view", "aten::zero_",
      "aten::zeros_like", "aten::zeros", "aten::alias", "aten::_unsafe_view",
      // Of graphs.
      "detach", "prim::Constant", "prim::ListConstruct"};
  return names;
}

void ExpectWhitelisted(const std::string& what,
                       const std::set<std::string>& names) {
  EXPECT_FALSE(names.empty()) << what;
  for (const std::string& name : names) {
    EXPECT_TRUE(Whitelist().count(name)) << what << " uses " << name;
  }
}

TEST(RecordingTest, BlendsTraceToTensorOperatorsAlone) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const Operator& op : Operators()) {
      Tensors inputs = Inputs(dtype);
      inputs[2] = inputs[2].to(at::kFloat);  // Casts are traced as well.
      std::set<std::string> kinds;
      const auto graph = Trace(op.run, inputs);
      for (const torch::jit::Node* node : graph->nodes()) {
        kinds.insert(node->kind().toQualString());
      }
      ExpectWhitelisted(op.name, kinds);
    }
  }
}

// A number that the host had read would be a constant of the graph, and wrong
// for the next inputs.
TEST(RecordingTest, ATraceOfABlendHoldsForOtherInputs) {
  for (const Operator& op : Operators()) {
    const auto graph = Trace(op.run, Inputs());
    for (const double alpha : {0.0, 0.3, 1.0, 7.5}) {
      Tensors others = Inputs(at::kDouble, alpha);
      others[0] = at::cos(others[0]);
      others[1] = at::cos(others[1]);
      if (alpha == 0) others[1].fill_(std::nan(""));
      const Tensor expected = op.run(others);
      const Tensor replayed = Replay(graph, others);
      EXPECT_TRUE(
          replayed.eq(expected).logical_or(expected.isnan()).all().item<bool>())
          << op.name << " at alpha " << alpha;
    }
  }
}

TEST(RecordingTest, BlendsRunTensorOperatorsAloneForwardAndBackward) {
  for (const bool alpha_learns : {false, true}) {
    for (const Operator& op : Operators()) {
      Tensors leaves = Inputs();
      for (size_t i = 0; i < (alpha_learns ? 4 : 2); ++i) {
        leaves[i].set_requires_grad(true);
      }
      ExpectWhitelisted(op.name, OperatorsOf([&] {
                          const Tensor out = op.run(leaves);
                          if (out.requires_grad()) out.sum().backward();
                        }));
    }
  }
}

TEST(RecordingTest, SlotsRunTensorOperatorsAloneForwardAndBackward) {
  const SlotLifecycle lifecycle = MakeLifecycle();
  for (const AlphaAlgorithm algorithm :
       {AlphaAlgorithm::kAdd, AlphaAlgorithm::kMultiply,
        AlphaAlgorithm::kGate}) {
    for (const SeedStage stage :
         {SeedStage::kTraining, SeedStage::kBlending, SeedStage::kHolding,
          SeedStage::kFossilized}) {
      for (const bool training : {true, false}) {
        GerminateRequest request;
        request.algorithm = algorithm;
        if (algorithm == AlphaAlgorithm::kGate) request.blend_id = "gated";
        const auto slot = MakeSlot(Topology::kCnn, 3);
        GrowTo(lifecycle, *slot, stage, request);
        slot->train(training);
        const Tensor host = Inputs(at::kFloat)[0].set_requires_grad(true);
        ExpectWhitelisted(StageName(stage), OperatorsOf([&] {
                            slot->forward(host).sum().backward();
                          }));
      }
    }
  }
}

TEST(RecordingTest, TheChecksNoticeANumberThatIsReadOnTheHost) {
  const auto reads = [](const Tensors& t) { return t[0].mul(t[2].item()); };
  const auto ran = OperatorsOf([&] { reads(Inputs()); });
  EXPECT_EQ(ran.count("aten::item"), 1);
  EXPECT_EQ(Whitelist().count("aten::item"), 0);
  const auto graph = Trace(reads, Inputs(at::kDouble, 0.6));
  const Tensors others = Inputs(at::kDouble, 0.3);
  EXPECT_FALSE(Replay(graph, others).eq(reads(others)).all().item<bool>());
}

// The C++ library has no shape inference for these two operators (the second
// is in clamp's backward); the Python package brings its own.
Tensor WhereOnMeta(const Tensor& condition, const Tensor& a, const Tensor& b) {
  const auto shape =
      at::infer_size(at::infer_size(condition.sizes(), a.sizes()), b.sizes());
  return at::empty(shape, a.dim() == 0 ? b.options() : a.options());
}
Tensor& LogicalAndOnMeta(const Tensor& a, const Tensor& b, Tensor& out) {
  out.resize_(at::infer_size(a.sizes(), b.sizes()));
  return out;
}
TORCH_LIBRARY_IMPL(aten, Meta, library) {
  library.impl("where.self", WhereOnMeta);
  library.impl("logical_and.out", LogicalAndOnMeta);
}

// A meta tensor has no data: reading any, on the host or not, throws.
TEST(RecordingTest, BlendsReadNoDataForwardOrBackward) {
  for (const bool alpha_learns : {false, true}) {
    for (const Operator& op : Operators()) {
      Tensors meta;
      for (const Tensor& input : Inputs(at::kFloat)) {
        meta.push_back(input.to(at::kMeta));
        const bool learns = alpha_learns || meta.size() <= 2;
        meta.back().set_requires_grad(learns);
      }
      const Tensor out = op.run(meta);
      EXPECT_TRUE(out.is_meta()) << op.name;
      if (!out.requires_grad()) continue;
      out.sum().backward();
      for (const Tensor& input : meta) {
        if (!input.grad().defined()) continue;
        EXPECT_TRUE(input.grad().is_meta()) << op.name;
        EXPECT_EQ(input.grad().sizes(), input.sizes()) << op.name;
      }
    }
  }
  EXPECT_ANY_THROW(at::empty({}, at::kMeta).item());
}

// Central differences against autograd, in float64. A straight-through seed's
// gradient is no derivative: BlendTest has its form.
TEST(BlendGradcheckTest, AgreesWithCentralDifferences) {
  constexpr double kStep = 1e-6;
  for (const Operator& op : Operators()) {
    if (op.name == "multiply, isolated") continue;  // Detached on purpose.
    for (const double alpha : {0.3, 0.6, 0.9}) {
      Tensors inputs = Inputs(at::kDouble, alpha);
      const Tensor out = op.run(inputs);
      const Tensor cotangent =
          at::cos(at::arange(out.numel(), at::kDouble)).reshape(out.sizes());
      const auto loss = [&](const Tensors& t) {
        return op.run(t).mul(cotangent).sum();
      };
      Tensors leaves;
      for (const Tensor& input : inputs) {
        leaves.push_back(input.clone().set_requires_grad(true));
      }
      loss(leaves).backward();
      for (size_t i = 0; i < inputs.size(); ++i) {
        if (op.name == "ste" && i == 1) continue;
        Tensor flat = inputs[i].view({-1});
        for (int64_t k = 0; k < flat.numel(); ++k) {
          const double value = flat[k].item<double>();
          flat[k].fill_(value + kStep);
          const double above = loss(inputs).item<double>();
          flat[k].fill_(value - kStep);
          const double below = loss(inputs).item<double>();
          flat[k].fill_(value);
          const Tensor grad = leaves[i].grad();
          const double analytic =
              grad.defined() ? grad.view({-1})[k].item<double>() : 0;
          EXPECT_NEAR(analytic, (above - below) / (2 * kStep), 1e-7)
              << op.name << ", input " << i << ", element " << k;
        }
      }
    }
  }
}

TEST(BlendGradcheckTest, MultiplierStaysInItsBoundsForRandomInputs) {
  at::manual_seed(3);
  for (int round = 0; round < 50; ++round) {
    const Tensor m = at::rand({4, 3, 2, 2}, at::kDouble).sub(0.5).mul(20);
    const Tensor a = at::rand({4, 1, 1, 1}, at::kDouble);
    const Tensor valve = MultiplyValveMultiplier(a, m);
    EXPECT_TRUE(valve.ge(a.mul(-1).add(1)).all().item<bool>());
    EXPECT_TRUE(valve.le(a.add(1)).all().item<bool>());
  }
}

TEST(ForceAlphaTracingTest, NeitherOpensNorForwardsWhileATracerRecords) {
  const SlotLifecycle lifecycle = MakeLifecycle();
  const auto slot = MakeSlot(Topology::kCnn, 3);
  GrowTo(lifecycle, *slot, SeedStage::kHolding);
  slot->eval();
  const Tensor host = Inputs(at::kFloat)[0];
  constexpr auto kState = absl::StatusCode::kFailedPrecondition;
  EXPECT_FALSE(IsTracing());
  Trace(
      [&](const Tensors& t) {
        EXPECT_TRUE(IsTracing());
        const auto refused = ForceAlpha(*slot, 0);
        EXPECT_THAT(refused, Refused(kState, "RECORDING"));
        EXPECT_NE(refused.status().message().find("SlotView{alpha_override}"),
                  absl::string_view::npos);
        return t[0].add(1);
      },
      {host});
  EXPECT_FALSE(IsTracing());
  const auto scope = ForceAlpha(*slot, 0);
  ASSERT_OK(scope);
  Trace(
      [&](const Tensors& t) {
        try {
          slot->forward(t[0]);
          ADD_FAILURE() << "not refused";
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), kState);
          EXPECT_EQ(error.reason(), "RECORDING");
        }
        return t[0].add(1);
      },
      {host});
  EXPECT_TRUE(slot->forward(host).eq(host).all().item<bool>());
}

}  // namespace
}  // namespace esper::slot
