#include "core/host/cnn_blueprints.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "core/host/layers.h"
#include "core/slot/blend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::host {
namespace {

using slot::AlphaAlgorithm;
using slot::InitProfile;
using slot::SeedModule;
using slot::SeedModuleOptions;
using ::testing::ElementsAre;

// Spinning threads of shared cores would make these tests a hundredfold slower.
const bool kOneThread = (at::set_num_threads(1), true);

const std::vector<std::string>& AllBlueprints() {
  static const auto& names = *new std::vector<std::string>{
      "noop",       "norm",      "attention",  "conv_small",
      "bottleneck", "depthwise", "conv_light", "conv_heavy"};
  return names;
}

const std::set<std::string> kConvolutional = {
    "conv_small", "bottleneck", "depthwise", "conv_light", "conv_heavy"};

std::shared_ptr<SeedModule> MakeSeed(
    const std::string& name, int64_t channels,
    InitProfile profile = InitProfile::kLive,
    AlphaAlgorithm algorithm = AlphaAlgorithm::kAdd, uint64_t seed = 3) {
  SeedModuleOptions options;
  options.channels = channels;
  options.init_profile = profile;
  options.algorithm = algorithm;
  options.seed = seed;
  return DefaultBlueprints()
      .Create(slot::Topology::kCnn, name, options)
      .value();
}

at::Tensor Random(at::IntArrayRef shape, uint64_t seed = 17) {
  return at::randn(shape, MakeGenerator(seed));
}

double MaxDifference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

TEST(CnnBlueprintsTest, ParameterCountsFollowTheFormulas) {
  using Formula = std::function<int64_t(int64_t)>;
  const std::map<std::string, Formula> formulas = {
      {"noop", [](int64_t) { return 0; }},
      {"norm", [](int64_t c) { return 2 * c + 1; }},
      {"attention",
       [](int64_t c) { return 2 * c * std::max<int64_t>(1, c / 4) + c; }},
      {"conv_small", [](int64_t c) { return c * c + 2 * c; }},
      {"bottleneck",
       [](int64_t c) {
         const int64_t b = std::max<int64_t>(8, c / 4);
         return 2 * c * b + 9 * b * b + 2 * c;
       }},
      {"depthwise", [](int64_t c) { return c * c + 11 * c; }},
      {"conv_light", [](int64_t c) { return 9 * c * c + 2 * c; }},
      {"conv_heavy", [](int64_t c) { return 18 * c * c + 4 * c; }},
  };
  const std::map<std::string, int64_t> at_64 = {
      {"noop", 0},           {"norm", 129},        {"attention", 2112},
      {"conv_small", 4224},  {"bottleneck", 4480}, {"depthwise", 4800},
      {"conv_light", 36992}, {"conv_heavy", 73984}};
  for (const std::string& name : AllBlueprints()) {
    const slot::Blueprint& blueprint =
        **DefaultBlueprints().Find(slot::Topology::kCnn, name);
    EXPECT_EQ(blueprint.parameter_count(64), at_64.at(name)) << name;
    for (const int64_t c : {1, 2, 3, 8, 16, 32, 64, 128}) {
      for (const auto profile : {InitProfile::kLive, InitProfile::kUpstream}) {
        int64_t counted = 0;
        for (const auto& parameter : MakeSeed(name, c, profile)->parameters()) {
          counted += parameter.numel();
        }
        EXPECT_EQ(counted, formulas.at(name)(c)) << name << " at " << c;
        EXPECT_EQ(blueprint.parameter_count(c), counted) << name;
      }
    }
  }
}

TEST(CnnBlueprintsTest, AreListedByEstimate) {
  std::vector<std::string> names;
  for (const slot::Blueprint* blueprint :
       DefaultBlueprints().List(slot::Topology::kCnn)) {
    names.push_back(blueprint->name);
  }
  EXPECT_THAT(names, ElementsAre("noop", "norm", "attention", "conv_small",
                                 "bottleneck", "depthwise", "conv_light",
                                 "conv_heavy"));
}

TEST(CnnBlueprintsTest, RefuseOptionsThatTheyDoNotHave) {
  SeedModuleOptions options;
  options.channels = 8;
  options.values["n_head"] = 4;
  for (const std::string& name : AllBlueprints()) {
    EXPECT_THAT(DefaultBlueprints().Create(slot::Topology::kCnn, name, options),
                ::esper::testing::StatusIs(absl::StatusCode::kInvalidArgument));
  }
}

TEST(CnnBlueprintsTest, KeepEveryShapeLayoutAndDtype) {
  for (const std::string& name : AllBlueprints()) {
    for (const int64_t c : {1, 3, 8, 48}) {
      const auto seed = MakeSeed(name, c);
      EXPECT_EQ(seed->blueprint_id(), name);
      for (const auto& [b, h, w] :
           {std::array{1, 1, 1}, std::array{2, 5, 3}, std::array{3, 8, 8}}) {
        const std::vector<int64_t> shape = {b, c, h, w};
        const at::Tensor x = Random(shape);
        EXPECT_EQ(seed->forward(x).sizes(), x.sizes()) << name;
        const at::Tensor last = x.contiguous(at::MemoryFormat::ChannelsLast);
        EXPECT_TRUE(
            at::allclose(seed->forward(last), seed->forward(x), 1e-4, 1e-5))
            << name;
      }
      seed->to(at::kDouble);
      const at::Tensor x = Random({2, c, 4, 4}).to(at::kDouble);
      EXPECT_EQ(seed->forward(x).scalar_type(), at::kDouble);
    }
  }
}

TEST(CnnBlueprintsTest, GroupsHoldSixteenChannelsWherePossible) {
  const std::map<int64_t, std::pair<int64_t, int64_t>> expected = {
      // channels, {live, upstream}
      {512, {32, 32}}, {128, {8, 8}}, {64, {4, 4}}, {62, {2, 2}}, {48, {2, 2}},
      {33, {1, 1}},    {32, {2, 2}},  {31, {1, 1}}, {16, {1, 1}}, {12, {1, 4}},
      {8, {1, 8}},     {4, {1, 4}},   {3, {1, 1}},  {2, {1, 2}},  {1, {1, 1}}};
  for (const auto& [channels, groups] : expected) {
    EXPECT_EQ(GroupNormGroups(channels, InitProfile::kLive), groups.first);
    EXPECT_EQ(GroupNormGroups(channels, InitProfile::kUpstream), groups.second);
  }
}

TEST(CnnBlueprintsTest, OnlyNormReadsItsInputByANormalisation) {
  for (const std::string& name : AllBlueprints()) {
    EXPECT_EQ(MakeSeed(name, 8)->starts_with_normalization(), name == "norm");
  }
}

TEST(CnnBlueprintsTest, WeightsComeFromTheSeedAndNoGlobalGenerator) {
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
    EXPECT_EQ(differ, kConvolutional.count(name) || name == "attention");
  }
  EXPECT_TRUE(at::equal(global.get_state(), state));
}

TEST(CnnBlueprintsTest, WithoutASeedWeightsComeFromTheDefaultGenerator) {
  SeedModuleOptions options;
  options.channels = 8;
  const auto make = [&options] {
    return DefaultBlueprints()
        .Create(slot::Topology::kCnn, "conv_light", options)
        .value();
  };
  EXPECT_FALSE(at::equal(make()->parameters()[0], make()->parameters()[0]));
}

TEST(CnnBlueprintsTest, SeedsMadeUnderInferenceModeCanBeTrained) {
  std::shared_ptr<SeedModule> seed;
  {
    c10::InferenceMode inference;
    seed = MakeSeed("conv_light", 8);
  }
  seed->forward(Random({1, 8, 4, 4})).sum().backward();
  EXPECT_TRUE(seed->parameters()[0].grad().defined());
}

// --- State at birth ---

// Largest distance from the identity that is promised; absent if none is.
std::optional<double> PromisedDistance(const std::string& name,
                                       InitProfile profile,
                                       AlphaAlgorithm algorithm) {
  const bool multiply = algorithm == AlphaAlgorithm::kMultiply;
  if (name == "noop") return 0;
  if (name == "norm") return 0;
  if (name == "attention") return std::nullopt;
  const bool near = name == "conv_small" || name == "bottleneck" || multiply;
  if (!near) return std::nullopt;
  return profile == InitProfile::kLive ? 0.01 : 0.0;
}

TEST(CnnBlueprintsTest, AreTheIdentityAtBirthWherePromised) {
  for (const auto profile : {InitProfile::kLive, InitProfile::kUpstream}) {
    for (const auto algorithm :
         {AlphaAlgorithm::kAdd, AlphaAlgorithm::kMultiply,
          AlphaAlgorithm::kGate}) {
      for (const std::string& name : AllBlueprints()) {
        const auto promised = PromisedDistance(name, profile, algorithm);
        const auto seed = MakeSeed(name, 32, profile, algorithm);
        const at::Tensor x = Random({4, 32, 8, 8});
        const double distance = MaxDifference(seed->forward(x), x);
        if (promised.has_value()) {
          EXPECT_LE(distance, *promised) << name;
          const bool alive = *promised > 0;
          EXPECT_EQ(distance > 0, alive) << name;
        } else {
          EXPECT_GT(distance, 0.01) << name;
        }
      }
    }
  }
}

TEST(CnnBlueprintsTest, AttentionStartsAtTheSigmoidOfThree) {
  const at::Tensor x = Random({2, 16, 5, 5});
  const double weight = 1 / (1 + std::exp(-3.0));
  for (const auto algorithm :
       {AlphaAlgorithm::kAdd, AlphaAlgorithm::kMultiply}) {
    const auto live = MakeSeed("attention", 16, InitProfile::kLive, algorithm);
    EXPECT_TRUE(at::allclose(live->forward(x), x * weight));
  }
  // Upstream's zeroed last layer includes the bias.
  const auto upstream = MakeSeed("attention", 16, InitProfile::kUpstream,
                                 AlphaAlgorithm::kMultiply);
  EXPECT_TRUE(at::allclose(upstream->forward(x), x * 0.5));
}

TEST(CnnBlueprintsTest, UpstreamProfileZeroesTheLayersInFront) {
  const auto is_zero = [](const std::string& name, const std::string& parameter,
                          AlphaAlgorithm algorithm) {
    const auto seed = MakeSeed(name, 16, InitProfile::kUpstream, algorithm);
    return seed->named_parameters()[parameter].abs().max().item<double>() == 0;
  };
  const auto add = AlphaAlgorithm::kAdd;
  const auto multiply = AlphaAlgorithm::kMultiply;
  EXPECT_TRUE(is_zero("conv_small", "conv.weight", add));
  EXPECT_TRUE(is_zero("bottleneck", "up.weight", add));
  EXPECT_FALSE(is_zero("depthwise", "pointwise.weight", add));
  EXPECT_TRUE(is_zero("depthwise", "pointwise.weight", multiply));
  EXPECT_FALSE(is_zero("conv_light", "enhance.conv.weight", add));
  EXPECT_TRUE(is_zero("conv_light", "enhance.conv.weight", multiply));
  EXPECT_FALSE(is_zero("conv_heavy", "enhance.0.conv.weight", multiply));
  EXPECT_TRUE(is_zero("conv_heavy", "enhance.1.conv.weight", multiply));
}

// --- Learning (every blueprint under every operator) ---

enum class Operator { kSte, kAdd, kMultiply, kGate };

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
      return slot::BlendGate(x, s, alpha, at::full({x.size(0), 1, 1, 1}, 0.9));
  }
  return {};
}

// Features that are not normalised, so that normalising them does something.
at::Tensor Features() { return 1.5 * Random({4, 16, 8, 8}, 21) + 0.5; }

// What a seed of the same blueprint makes of the features, with random
// parameters: a target within reach.
at::Tensor TeacherOutput(const std::string& blueprint, Operator op,
                         const at::Tensor& x) {
  const auto teacher = MakeSeed(blueprint, x.size(1));
  at::NoGradGuard no_grad;
  uint64_t seed = 100;
  for (const at::Tensor& parameter : teacher->parameters()) {
    parameter.add_(Random(parameter.sizes(), seed++));
  }
  return Blend(op, x, teacher->forward(x));
}

// The sigmoid of attention starts at 3, where it is flat.
double LearningRate(const std::string& blueprint) {
  return blueprint == "attention" ? 10.0 : 0.1;
}

struct Training {
  std::map<std::string, double> first_gradients;  // Norm by parameter.
  double first_loss = 0;
  double last_loss = 0;
  double output_change = 0;  // Of the seed.
};

Training Train(SeedModule& seed, Operator op, int steps) {
  Training training;
  const double rate = LearningRate(seed.blueprint_id());
  const at::Tensor x = Features();
  // The value of STE is the host's whatever the seed does; its gradient is that
  // of the seed's own features, which are what learns.
  const Operator taught = op == Operator::kSte ? Operator::kAdd : op;
  const at::Tensor target = TeacherOutput(seed.blueprint_id(), taught, x);
  const at::Tensor before = seed.forward(x).detach();
  for (int step = 0; step <= steps; ++step) {
    seed.zero_grad();
    const at::Tensor loss = at::mse_loss(Blend(op, x, seed.forward(x)), target);
    (step == 0 ? training.first_loss : training.last_loss) =
        loss.item<double>();
    loss.backward();
    at::NoGradGuard no_grad;
    for (const auto& item : seed.named_parameters()) {
      const at::Tensor& gradient = item.value().grad();
      if (step == 0) {
        training.first_gradients[item.key()] =
            gradient.defined() ? gradient.norm().item<double>() : 0;
      }
      if (step < steps) item.value().sub_(gradient, rate);
    }
  }
  training.output_change = MaxDifference(seed.forward(x).detach(), before);
  return training;
}

class LivenessTest
    : public ::testing::TestWithParam<std::tuple<std::string, Operator>> {};

TEST_P(LivenessTest, SeedGetsGradientsAndLearns) {
  const auto& [name, op] = GetParam();
  const auto seed = MakeSeed(name, 16, InitProfile::kLive, AlgorithmOf(op));
  const Training training = Train(*seed, op, 50);
  int reached = 0;
  for (const auto& [parameter, gradient] : training.first_gradients) {
    EXPECT_TRUE(std::isfinite(gradient)) << parameter;
    if (gradient > 1e-7) ++reached;
    // The other two open up by their scale and their last layer first.
    if (kConvolutional.count(name)) {
      EXPECT_GT(gradient, 1e-7) << parameter;
    }
  }
  EXPECT_GE(reached, 1);
  EXPECT_GT(training.output_change, 1e-3);
  if (op != Operator::kSte) {
    EXPECT_LT(training.last_loss, 0.95 * training.first_loss);
  }
  // After the first step every parameter of every seed takes part.
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
    All, LivenessTest,
    ::testing::Combine(::testing::Values("norm", "attention", "conv_small",
                                         "bottleneck", "depthwise",
                                         "conv_light", "conv_heavy"),
                       ::testing::Values(Operator::kSte, Operator::kAdd,
                                         Operator::kMultiply, Operator::kGate)),
    [](const auto& info) {
      return std::get<0>(info.param) + "_" + NameOf(std::get<1>(info.param));
    });

TEST(CnnBlueprintsTest, UpstreamProfileHasTheDeadSeedsItIsKnownFor) {
  const auto gradient = [](const std::string& name, Operator op) {
    const auto seed =
        MakeSeed(name, 16, InitProfile::kUpstream, AlgorithmOf(op));
    double sum = 0;
    for (const auto& [_, norm] : Train(*seed, op, 0).first_gradients) {
      sum += norm;
    }
    return sum;
  };
  EXPECT_EQ(gradient("conv_small", Operator::kAdd), 0);
  EXPECT_EQ(gradient("conv_light", Operator::kMultiply), 0);
  EXPECT_EQ(gradient("conv_heavy", Operator::kMultiply), 0);
  EXPECT_EQ(gradient("depthwise", Operator::kMultiply), 0);
  EXPECT_GT(gradient("conv_light", Operator::kAdd), 0);
}

}  // namespace
}  // namespace esper::host
