#include "core/host/transformer_blueprints.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core/host/cnn_blueprints.h"
#include "core/host/layers.h"
#include "core/slot/blend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::host {
namespace {

using ::esper::testing::Refused;
using slot::AlphaAlgorithm;
using slot::InitProfile;
using slot::SeedModule;
using slot::SeedModuleOptions;
using ::testing::ElementsAre;

const bool kOneThread = (at::set_num_threads(1), true);

const std::vector<std::string>& AllBlueprints() {
  static const auto& names = *new std::vector<std::string>{
      "noop",      "norm",           "lora",      "lora_large",
      "attention", "flex_attention", "mlp_small", "mlp"};
  return names;
}

using Values = std::map<std::string, int64_t>;

absl::StatusOr<std::shared_ptr<SeedModule>> TryMakeSeed(const std::string& name,
                                                        int64_t width,
                                                        const Values& values) {
  SeedModuleOptions options;
  options.channels = width;
  options.seed = 3;
  options.values = values;
  return DefaultBlueprints().Create(slot::Topology::kTransformer, name,
                                    options);
}

std::shared_ptr<SeedModule> MakeSeed(
    const std::string& name, int64_t width,
    InitProfile profile = InitProfile::kLive,
    AlphaAlgorithm algorithm = AlphaAlgorithm::kAdd, uint64_t seed = 3) {
  SeedModuleOptions options;
  options.channels = width;
  options.init_profile = profile;
  options.algorithm = algorithm;
  options.seed = seed;
  return DefaultBlueprints()
      .Create(slot::Topology::kTransformer, name, options)
      .value();
}

at::Tensor Random(at::IntArrayRef shape, uint64_t seed = 17) {
  return at::randn(shape, MakeGenerator(seed));
}

double MaxDifference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

// Adds noise to every parameter, so that no layer is zero.
void Disturb(SeedModule& seed, uint64_t noise = 100, double size = 0.3) {
  at::NoGradGuard no_grad;
  for (const at::Tensor& parameter : seed.parameters()) {
    parameter.add_(Random(parameter.sizes(), noise++), size);
  }
}

void CopyParameters(const SeedModule& from, SeedModule& to) {
  at::NoGradGuard no_grad;
  for (const auto& item : from.named_parameters()) {
    to.named_parameters()[item.key()].copy_(item.value());
  }
}

TEST(TransformerBlueprintsTest, ParameterCountsFollowTheFormulas) {
  using Formula = std::function<int64_t(int64_t)>;
  const Formula attention = [](int64_t d) { return 4 * d * d + 4 * d; };
  const std::map<std::string, Formula> formulas = {
      {"noop", [](int64_t) { return 0; }},
      {"norm", [](int64_t d) { return 2 * d + 1; }},
      {"lora", [](int64_t d) { return 16 * d; }},
      {"lora_large", [](int64_t d) { return 64 * d; }},
      {"attention", attention},
      {"flex_attention", attention},
      {"mlp_small", [](int64_t d) { return 4 * d * d + 3 * d; }},
      {"mlp", [](int64_t d) { return 8 * d * d + 5 * d; }},
  };
  const std::map<std::string, int64_t> at_384 = {
      {"noop", 0},           {"norm", 769},         {"lora", 6144},
      {"lora_large", 24576}, {"attention", 591360}, {"flex_attention", 591360},
      {"mlp_small", 590976}, {"mlp", 1181568}};
  for (const std::string& name : AllBlueprints()) {
    const slot::Blueprint& blueprint =
        **DefaultBlueprints().Find(slot::Topology::kTransformer, name);
    for (const int64_t d : {4, 12, 128, 384}) {
      int64_t counted = 0;
      for (const auto& parameter : MakeSeed(name, d)->parameters()) {
        counted += parameter.numel();
      }
      EXPECT_EQ(counted, formulas.at(name)(d)) << name << " at " << d;
      EXPECT_EQ(blueprint.parameter_count(d), counted) << name;
      if (d == 384) {
        EXPECT_EQ(counted, at_384.at(name)) << name;
      }
    }
  }
}

TEST(TransformerBlueprintsTest, AreListedByEstimateThenName) {
  std::vector<std::string> names;
  for (const slot::Blueprint* blueprint :
       DefaultBlueprints().List(slot::Topology::kTransformer)) {
    names.push_back(blueprint->name);
  }
  EXPECT_THAT(names,
              ElementsAre("noop", "norm", "lora", "lora_large", "attention",
                          "flex_attention", "mlp_small", "mlp"));
}

TEST(TransformerBlueprintsTest, ShareTheRegistryWithTheConvolutionalOnes) {
  for (const auto topology :
       {slot::Topology::kCnn, slot::Topology::kTransformer}) {
    for (const slot::Blueprint* blueprint :
         DefaultBlueprints().List(topology)) {
      EXPECT_EQ(blueprint->topology, topology);
      EXPECT_EQ(blueprint->action_index,
                slot::BlueprintActionIndex(blueprint->name));
    }
    EXPECT_EQ(DefaultBlueprints().List(topology).size(), 8);
  }
  EXPECT_THAT(DefaultBlueprints().Find(slot::Topology::kTransformer, "conv"),
              ::esper::testing::StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(TransformerBlueprintsTest, HeadsMustDivideTheWidth) {
  for (const std::string name : {"attention", "flex_attention"}) {
    for (const auto& [width, values] :
         std::vector<std::pair<int64_t, Values>>{{6, {}},
                                                 {8, {{"n_head", 3}}},
                                                 {8, {{"n_head", 0}}},
                                                 {8, {{"n_head", -4}}},
                                                 {8, {{"n_head", 16}}}}) {
      EXPECT_THAT(TryMakeSeed(name, width, values),
                  Refused(absl::StatusCode::kInvalidArgument,
                          std::string("BAD_BLUEPRINT_OPTION")));
    }
    EXPECT_OK(TryMakeSeed(name, 6, {{"n_head", 3}}));
    EXPECT_OK(TryMakeSeed(name, 6, {{"n_head", 1}}));
  }
}

TEST(TransformerBlueprintsTest, RefuseOptionsThatTheyDoNotHave) {
  for (const std::string& name : AllBlueprints()) {
    const bool attention = name.find("attention") != std::string::npos;
    const bool mlp = name.find("mlp") != std::string::npos;
    EXPECT_EQ(TryMakeSeed(name, 8, {{"n_head", 2}}).ok(), attention) << name;
    EXPECT_EQ(TryMakeSeed(name, 8, {{"checkpoint", 1}}).ok(), mlp) << name;
    EXPECT_FALSE(TryMakeSeed(name, 8, {{"rank", 1}}).ok()) << name;
  }
  EXPECT_THAT(TryMakeSeed("mlp", 8, {{"checkpoint", 2}}),
              Refused(absl::StatusCode::kInvalidArgument,
                      std::string("BAD_BLUEPRINT_OPTION")));
}

TEST(TransformerBlueprintsTest, KeepEveryShapeAndDtype) {
  for (const std::string& name : AllBlueprints()) {
    for (const int64_t d : {4, 12, 20}) {
      const auto seed = MakeSeed(name, d);
      EXPECT_EQ(seed->blueprint_id(), name);
      Disturb(*seed);
      const std::vector<std::vector<int64_t>> shapes = {
          {1, 1, d}, {3, 1, d}, {2, 7, d}};
      for (const std::vector<int64_t>& shape : shapes) {
        const at::Tensor x = Random(shape);
        EXPECT_EQ(seed->forward(x).sizes(), at::IntArrayRef(shape)) << name;
        // The same numbers with batch and time swapped in memory.
        const at::Tensor other = x.transpose(0, 1).contiguous().transpose(0, 1);
        EXPECT_TRUE(
            at::allclose(seed->forward(other), seed->forward(x), 1e-5, 1e-6))
            << name;
      }
      seed->to(at::kDouble);
      const at::Tensor x = Random({2, 5, d}).to(at::kDouble);
      EXPECT_EQ(seed->forward(x).scalar_type(), at::kDouble) << name;
    }
  }
}

TEST(TransformerBlueprintsTest, OnlyNormReadsItsInputByANormalisation) {
  for (const std::string& name : AllBlueprints()) {
    EXPECT_EQ(MakeSeed(name, 8)->starts_with_normalization(), name == "norm");
  }
}

TEST(TransformerBlueprintsTest, WeightsComeFromTheSeedAndNoGlobalGenerator) {
  const at::Generator& global = at::detail::getDefaultCPUGenerator();
  const at::Tensor state = global.get_state();
  for (const std::string& name : AllBlueprints()) {
    const auto a = MakeSeed(name, 16);
    const auto b = MakeSeed(name, 16);
    const auto c = MakeSeed(name, 16, InitProfile::kLive, AlphaAlgorithm::kAdd,
                            /*seed=*/4);
    bool differ = false;
    for (size_t i = 0; i < a->parameters().size(); ++i) {
      EXPECT_TRUE(at::equal(a->parameters()[i], b->parameters()[i])) << name;
      differ |= !at::equal(a->parameters()[i], c->parameters()[i]);
    }
    EXPECT_EQ(differ, name != "noop" && name != "norm") << name;
  }
  EXPECT_TRUE(at::equal(global.get_state(), state));
}

TEST(TransformerBlueprintsTest, SeedsMadeUnderInferenceModeCanBeTrained) {
  std::shared_ptr<SeedModule> seed;
  {
    c10::InferenceMode inference;
    seed = MakeSeed("mlp", 8);
  }
  seed->forward(Random({1, 4, 8})).sum().backward();
  EXPECT_TRUE(seed->parameters()[0].grad().defined());
}

TEST(TransformerBlueprintsTest, AreExactlyTheIdentityAtBirth) {
  const at::Tensor x = 3 * Random({2, 6, 16}) + 1;
  for (const auto profile : {InitProfile::kLive, InitProfile::kUpstream}) {
    for (const auto algorithm :
         {AlphaAlgorithm::kAdd, AlphaAlgorithm::kMultiply,
          AlphaAlgorithm::kGate}) {
      for (const std::string& name : AllBlueprints()) {
        const auto seed = MakeSeed(name, 16, profile, algorithm);
        EXPECT_TRUE(at::equal(seed->forward(x), x)) << name;
      }
    }
  }
}

// --- Attention ---

TEST(TransformerBlueprintsTest, AttentionNeverLooksAhead) {
  for (const std::string name : {"attention", "flex_attention"}) {
    const auto seed = MakeSeed(name, 8);
    Disturb(*seed);
    const at::Tensor x = Random({2, 6, 8});
    const at::Tensor y = seed->forward(x);
    for (int64_t t = 0; t < 6; ++t) {
      at::Tensor changed = x.clone();
      changed.narrow(1, t, 6 - t).add_(Random({2, 6 - t, 8}, 40 + t));
      const at::Tensor z = seed->forward(changed);
      if (t > 0) {
        EXPECT_LE(MaxDifference(z.narrow(1, 0, t), y.narrow(1, 0, t)), 1e-6);
      }
      EXPECT_GT(MaxDifference(z.narrow(1, t, 1), y.narrow(1, t, 1)), 1e-3);
      // A prefix alone gives what it gives as a part.
      EXPECT_LE(MaxDifference(seed->forward(x.narrow(1, 0, t + 1)),
                              y.narrow(1, 0, t + 1)),
                1e-5);
    }
  }
}

TEST(TransformerBlueprintsTest, FlexAttentionEqualsAttentionForEqualWeights) {
  const auto attention = MakeSeed("attention", 16);
  const auto flex = MakeSeed("flex_attention", 16);
  Disturb(*attention);
  CopyParameters(*attention, *flex);
  // More lengths than upstream's mask cache has entries.
  for (int64_t t = 1; t <= 12; ++t) {
    const at::Tensor x = Random({2, t, 16}, t);
    EXPECT_LE(MaxDifference(attention->forward(x), flex->forward(x)), 1e-5);
  }
}

// --- Activation checkpoints ---

struct MlpPair {
  std::shared_ptr<SeedModule> plain;
  std::shared_ptr<SeedModule> checkpointed;
};

MlpPair MakePair(const std::string& name) {
  MlpPair pair{*TryMakeSeed(name, 12, {}),
               *TryMakeSeed(name, 12, {{"checkpoint", 1}})};
  Disturb(*pair.plain);
  CopyParameters(*pair.plain, *pair.checkpointed);
  return pair;
}

bool Recomputes(const at::Tensor& y) {
  return y.grad_fn() != nullptr &&
         y.grad_fn()->name().find("FeedForwardNode") != std::string::npos;
}

TEST(TransformerBlueprintsTest, CheckpointIsActiveOnlyWhereItSaves) {
  for (const std::string name : {"mlp_small", "mlp"}) {
    const MlpPair pair = MakePair(name);
    const at::Tensor constant = Random({2, 5, 12});
    const at::Tensor leaf = Random({2, 5, 12}).requires_grad_();
    EXPECT_TRUE(Recomputes(pair.checkpointed->forward(leaf)));
    EXPECT_FALSE(Recomputes(pair.plain->forward(leaf)));
    EXPECT_FALSE(Recomputes(pair.checkpointed->forward(constant)));
    {
      at::NoGradGuard no_grad;
      EXPECT_FALSE(Recomputes(pair.checkpointed->forward(leaf)));
    }
    pair.checkpointed->eval();
    EXPECT_FALSE(Recomputes(pair.checkpointed->forward(leaf)));
  }
}

TEST(TransformerBlueprintsTest, CheckpointKeepsValuesAndGradients) {
  for (const std::string name : {"mlp_small", "mlp"}) {
    const MlpPair pair = MakePair(name);
    const at::Tensor cotangent = Random({2, 5, 12}, 8);
    std::vector<at::Tensor> inputs, outputs;
    for (const auto& seed : {pair.plain, pair.checkpointed}) {
      inputs.push_back(Random({2, 5, 12}).requires_grad_());
      outputs.push_back(seed->forward(inputs.back()));
      outputs.back().backward(cotangent);
    }
    EXPECT_TRUE(at::equal(outputs[0], outputs[1]));
    EXPECT_LE(MaxDifference(inputs[0].grad(), inputs[1].grad()), 1e-5);
    for (const auto& item : pair.plain->named_parameters()) {
      const at::Tensor other =
          pair.checkpointed->named_parameters()[item.key()].grad();
      EXPECT_TRUE(at::allclose(item.value().grad(), other, 1e-5, 1e-5))
          << item.key();
    }
  }
}

TEST(TransformerBlueprintsTest, CheckpointGivesAFrozenParameterNoGradient) {
  const MlpPair pair = MakePair("mlp");
  for (const char* frozen : {"fc1.weight", "fc1.bias", "fc2.weight"}) {
    pair.checkpointed->zero_grad(/*set_to_none=*/true);
    pair.checkpointed->named_parameters()[frozen].set_requires_grad(false);
    const at::Tensor x = Random({2, 5, 12}).requires_grad_();
    pair.checkpointed->forward(x).sum().backward();
    EXPECT_TRUE(x.grad().defined());
    for (const auto& item : pair.checkpointed->named_parameters()) {
      EXPECT_EQ(item.value().grad().defined(), item.value().requires_grad())
          << item.key();
    }
  }
}

TEST(TransformerBlueprintsTest, CheckpointCanBeDifferentiatedTwice) {
  const MlpPair pair = MakePair("mlp_small");
  std::vector<at::Tensor> second;
  for (const auto& seed : {pair.plain, pair.checkpointed}) {
    const at::Tensor x = Random({2, 3, 12}).requires_grad_();
    const at::Tensor first = torch::autograd::grad(
        {seed->forward(x).square().sum()}, {x}, /*grad_outputs=*/{},
        /*retain_graph=*/true, /*create_graph=*/true)[0];
    second.push_back(torch::autograd::grad({first.square().sum()}, {x})[0]);
  }
  EXPECT_TRUE(at::allclose(second[0], second[1], 1e-4, 1e-3));
}

TEST(TransformerBlueprintsTest, CheckpointNoticesParametersThatChanged) {
  const MlpPair pair = MakePair("mlp");
  const at::Tensor x = Random({2, 5, 12}).requires_grad_();
  const at::Tensor loss = pair.checkpointed->forward(x).sum();
  {
    at::NoGradGuard no_grad;
    pair.checkpointed->named_parameters()["fc1.weight"].add_(1);
  }
  EXPECT_ANY_THROW(loss.backward());
}

// --- Learning (every blueprint under every operator) ---

enum class Operator { kSte, kAdd, kMultiply, kGate };

at::Tensor Blend(Operator op, const at::Tensor& x, const at::Tensor& s) {
  const at::Tensor alpha = at::full({}, 0.5);
  switch (op) {
    case Operator::kSte:
      return slot::SteForward(x, s);
    case Operator::kAdd:
      return slot::BlendAdd(x, s, alpha);
    case Operator::kMultiply:
      return slot::BlendMultiply(x, s, alpha, /*seed_input=*/x);
    case Operator::kGate:
      return slot::BlendGate(x, s, alpha, at::full({x.size(0), 1, 1}, 0.9));
  }
  return {};
}

AlphaAlgorithm AlgorithmOf(Operator op) {
  switch (op) {
    case Operator::kMultiply:
      return AlphaAlgorithm::kMultiply;
    case Operator::kGate:
      return AlphaAlgorithm::kGate;
    default:
      return AlphaAlgorithm::kAdd;
  }
}

class TransformerLivenessTest
    : public ::testing::TestWithParam<std::tuple<std::string, Operator>> {};

TEST_P(TransformerLivenessTest, SeedGetsGradientsAndLearns) {
  const auto& [name, op] = GetParam();
  const auto seed = MakeSeed(name, 16, InitProfile::kLive, AlgorithmOf(op));
  const at::Tensor x = 1.5 * Random({4, 6, 16}, 21) + 0.5;
  const auto teacher = MakeSeed(name, 16);
  Disturb(*teacher);
  // STE shows the host's value; what it teaches is the seed's own features.
  const Operator taught = op == Operator::kSte ? Operator::kAdd : op;
  const at::Tensor target = Blend(taught, x, teacher->forward(x)).detach();
  const at::Tensor before = seed->forward(x).detach();

  const std::vector<at::Tensor> parameters = seed->parameters();
  double first_loss = 0, last_loss = 0;
  int reached_at_first = 0;
  for (int step = 0; step <= 50; ++step) {
    seed->zero_grad(/*set_to_none=*/true);
    const at::Tensor loss =
        at::mse_loss(Blend(op, x, seed->forward(x)), target);
    (step == 0 ? first_loss : last_loss) = loss.item<double>();
    loss.backward();
    at::NoGradGuard no_grad;
    for (const at::Tensor& parameter : parameters) {
      const double norm = parameter.grad().norm().item<double>();
      EXPECT_TRUE(std::isfinite(norm));
      if (step == 0 && norm > 1e-7) ++reached_at_first;
      if (step < 50) parameter.sub_(parameter.grad(), /*alpha=*/0.3);
    }
  }
  EXPECT_GE(reached_at_first, 1);
  EXPECT_GT(MaxDifference(seed->forward(x).detach(), before), 1e-3);
  if (op != Operator::kSte) {
    EXPECT_LT(last_loss, 0.95 * first_loss);
  }
  // Once the last layer has opened, every parameter takes part.
  for (const auto& item : seed->named_parameters()) {
    EXPECT_GT(item.value().grad().norm().item<double>(), 0) << item.key();
  }
}

const char* NameOf(Operator op) {
  switch (op) {
    case Operator::kSte:
      return "ste";
    case Operator::kAdd:
      return "add";
    case Operator::kMultiply:
      return "multiply";
    case Operator::kGate:
      return "gate";
  }
  return "";
}

INSTANTIATE_TEST_SUITE_P(
    All, TransformerLivenessTest,
    ::testing::Combine(::testing::Values("norm", "lora", "lora_large",
                                         "attention", "flex_attention",
                                         "mlp_small", "mlp"),
                       ::testing::Values(Operator::kSte, Operator::kAdd,
                                         Operator::kMultiply, Operator::kGate)),
    [](const auto& info) {
      return std::get<0>(info.param) + "_" + NameOf(std::get<1>(info.param));
    });

}  // namespace
}  // namespace esper::host
