#include "core/host/transformer_host.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/host/layers.h"
#include "core/host/presets.h"
#include "core/host/transformer_layers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::host {
namespace {

using ::esper::testing::Refused;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const bool kOneThread = (at::set_num_threads(1), true);

TransformerHostOptions Small() {
  TransformerHostOptions options;
  options.vocab_size = 31;
  options.width = 16;
  options.heads = 4;
  options.layers = 6;
  options.block_size = 12;
  options.dropout = 0;
  return options;
}

std::shared_ptr<TransformerHost> MakeHost(const TransformerHostOptions& options,
                                          uint64_t seed = 1) {
  return TransformerHost::Create(options, seed).value();
}

at::Tensor Random(at::IntArrayRef shape, uint64_t seed = 99) {
  return at::randn(shape, MakeGenerator(seed));
}

at::Tensor Tokens(int64_t batch, int64_t length, int64_t vocab,
                  uint64_t seed = 7) {
  return at::randint(0, vocab, {batch, length}, MakeGenerator(seed), at::kLong);
}

double MaxDifference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

int64_t CountByHand(const Host& host) {
  int64_t count = 0;
  for (const at::Tensor& parameter : host.parameters()) {
    count += parameter.numel();
  }
  return count;
}

// Cross-entropy of random next tokens, nats.
double InitialLoss(const TransformerHostOptions& options, int64_t batch) {
  const auto host = MakeHost(options);
  host->eval();
  c10::InferenceMode inference;
  const at::Tensor x = Tokens(batch, options.block_size, options.vocab_size, 1);
  const at::Tensor y = Tokens(batch, options.block_size, options.vocab_size, 2);
  return at::cross_entropy_loss(host->Forward(x).flatten(0, 1), y.flatten())
      .item<double>();
}

// --- Presets ---

TEST(HostPresetsTest, HaveThePublishedSizesAndSlots) {
  const std::map<std::string, std::pair<int64_t, int64_t>> expected = {
      {"cifar_baseline", {6418, 6}},
      {"cifar_multichannel", {6418, 6}},
      {"cifar_postpool", {24346, 6}},
      {"cifar_highres", {24346, 6}},
      {"cifar_scale", {99922, 10}},
      {"cifar_deep_multichannel", {99922, 10}},
      {"cifar_impaired", {77, 6}},
      {"cifar_minimal", {164, 3}},
      {"cifar_deep_impaired", {1140, 10}},
      {"tinystories", {30044544, 3}},
  };
  ASSERT_EQ(HostPresets().size(), expected.size());
  for (const HostPreset& preset : HostPresets()) {
    ASSERT_EQ(expected.count(preset.name), 1) << preset.name;
    const auto& [parameters, slots] = expected.at(preset.name);
    EXPECT_EQ(preset.parameter_count, parameters) << preset.name;
    EXPECT_EQ(preset.slots, slots) << preset.name;
    const std::shared_ptr<Host> host = preset.create(/*seed=*/1).value();
    EXPECT_EQ(CountByHand(*host), parameters) << preset.name;
    EXPECT_EQ(host->injection_specs().size(), slots) << preset.name;
    EXPECT_EQ(host->topology(), preset.topology);
    EXPECT_EQ(FindHostPreset(preset.name).value(), &preset);
  }
}

TEST(HostPresetsTest, UnknownNameIsRefusedWithTheNamesThereAre) {
  const auto found = FindHostPreset("cifar");
  EXPECT_THAT(found, Refused(absl::StatusCode::kInvalidArgument,
                             std::string("UNKNOWN_PRESET")));
  EXPECT_THAT(std::string(found.status().message()),
              HasSubstr("cifar_baseline"));
  EXPECT_THAT(std::string(found.status().message()), HasSubstr("tinystories"));
}

// --- Structure ---

TEST(TransformerHostTest, ParameterCountFollowsTheFormula) {
  EXPECT_EQ(TransformerHostParameterCount(TransformerHostOptions()), 30044544);
  for (const int64_t vocab : {1, 50}) {
    for (const int64_t width : {4, 24}) {
      for (const int64_t layers : {1, 4}) {
        TransformerHostOptions options = Small();
        options.vocab_size = vocab;
        options.width = width;
        options.layers = layers;
        options.segments = 1;
        EXPECT_EQ(CountByHand(*MakeHost(options)),
                  (vocab + 12) * width +
                      layers * (12 * width * width + 13 * width) + 2 * width);
        EXPECT_EQ(TransformerHostParameterCount(options),
                  CountByHand(*MakeHost(options)));
      }
    }
  }
}

TEST(TransformerHostTest, PointsLieBehindEqualGroupsOfLayers) {
  const auto host = MakeHost(Small());
  EXPECT_EQ(host->topology(), slot::Topology::kTransformer);
  EXPECT_THAT(host->execution_order(), ElementsAre("r0c0", "r0c1", "r0c2"));
  ASSERT_EQ(host->injection_specs().size(), 3);
  for (int i = 0; i < 3; ++i) {
    const slot::InjectionSpec& spec = host->injection_specs()[i];
    EXPECT_OK(spec.Validate());
    EXPECT_EQ(spec.slot_id, host->execution_order()[i]);
    EXPECT_EQ(spec.order, i);
    EXPECT_EQ(spec.channels, 16);
    EXPECT_EQ(spec.layer_begin, 2 * i);
    EXPECT_EQ(spec.layer_end, 2 * i + 2);
    EXPECT_EQ(spec.surface, slot::SurfaceType::kBlockEnd);
    EXPECT_DOUBLE_EQ(spec.position, (i + 1) / 3.0);
  }
}

TEST(TransformerHostTest, ForwardEqualsEveryPathThroughItsSegments) {
  for (const int64_t segments : {1, 2, 3, 6}) {
    TransformerHostOptions options = Small();
    options.segments = segments;
    const auto host = MakeHost(options);
    const at::Tensor x = Tokens(3, 9, 31);
    const at::Tensor whole = host->Forward(x);
    EXPECT_EQ(whole.sizes(), at::IntArrayRef({3, 9, 31}));
    const std::vector<std::string>& order = host->execution_order();
    for (size_t i = 0; i < order.size(); ++i) {
      const at::Tensor to_i = host->ForwardToSegment(order[i], x);
      EXPECT_EQ(to_i.sizes(), at::IntArrayRef({3, 9, 16}));
      EXPECT_TRUE(at::equal(host->ForwardFromSegment(order[i], to_i), whole));
      for (size_t j = i + 1; j < order.size(); ++j) {
        EXPECT_TRUE(at::equal(host->ForwardToSegment(order[j], to_i, order[i]),
                              host->ForwardToSegment(order[j], x)));
      }
    }
  }
}

TEST(TransformerHostTest, SegmentsDoNotWriteIntoTheirInput) {
  const auto host = MakeHost(Small());
  const at::Tensor features = Random({2, 5, 16});
  const at::Tensor copy = features.clone();
  for (const char* target : {"r0c1", "r0c2"}) {
    const at::Tensor y = host->ForwardToSegment(target, features, "r0c0");
    EXPECT_NE(y.data_ptr(), features.data_ptr());
  }
  host->ForwardFromSegment("r0c2", features);
  EXPECT_TRUE(at::equal(features, copy));
}

TEST(TransformerHostTest, NoPositionSeesWhatFollowsIt) {
  const auto host = MakeHost(Small());
  const at::Tensor x = Tokens(2, 12, 31);
  const at::Tensor y = host->Forward(x);
  for (int64_t t = 1; t < 12; ++t) {
    at::Tensor changed = x.clone();
    changed.narrow(1, t, 12 - t).add_(1).remainder_(31);
    const at::Tensor z = host->Forward(changed);
    EXPECT_LE(MaxDifference(z.narrow(1, 0, t), y.narrow(1, 0, t)), 1e-6);
    EXPECT_GT(MaxDifference(z.narrow(1, t, 1), y.narrow(1, t, 1)), 1e-4);
    EXPECT_LE(
        MaxDifference(host->Forward(x.narrow(1, 0, t)), y.narrow(1, 0, t)),
        1e-5);
  }
}

TEST(TransformerHostTest, PositionsAreToldApart) {
  const auto host = MakeHost(Small());
  const at::Tensor y =
      host->ForwardToSegment("r0c0", at::zeros({1, 4}, at::kLong));
  EXPECT_GT(MaxDifference(y.select(1, 0), y.select(1, 1)), 1e-3);
}

TEST(TransformerHostTest, HeadSharesTheTokenEmbedding) {
  const auto host = MakeHost(Small());
  EXPECT_FALSE(host->named_parameters().contains("head.weight"));
  const at::Tensor features = Random({1, 3, 16});
  host->ForwardFromSegment("r0c2", features).sum().backward();
  const at::Tensor weight = host->named_parameters()["tok_emb.weight"];
  // Without a token having been looked up, every row has a gradient.
  EXPECT_TRUE(weight.grad().defined());
  EXPECT_GT(weight.grad().abs().sum(1).min().item<double>(), 0);
}

TEST(TransformerHostTest, EveryParameterThatIsUsedGetsAGradient) {
  const auto host = MakeHost(Small());
  const at::Tensor x = Tokens(4, 12, 31);
  at::cross_entropy_loss(host->Forward(x).flatten(0, 1), x.flatten())
      .backward();
  for (const auto& item : host->named_parameters()) {
    ASSERT_TRUE(item.value().grad().defined()) << item.key();
    EXPECT_GT(item.value().grad().norm().item<double>(), 0) << item.key();
  }
}

// --- Misuse ---

TEST(TransformerHostTest, RefusesSequencesThatAreTooLong) {
  const auto host = MakeHost(Small());
  EXPECT_NO_THROW(host->Forward(Tokens(1, 12, 31)));
  for (const at::Tensor& x : {Tokens(1, 13, 31), Tokens(1, 0, 31)}) {
    try {
      host->Forward(x);
      FAIL() << "accepted " << x.sizes();
    } catch (const ShapeError& error) {
      EXPECT_EQ(error.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(error.what(), HasSubstr("1 <= T <= 12"));
    }
  }
  EXPECT_THROW(host->ForwardFromSegment("r0c1", Random({1, 13, 16})),
               ShapeError);
}

TEST(TransformerHostTest, RefusesInputsOfWrongShapeOrDtype) {
  const auto host = MakeHost(Small());
  EXPECT_THROW(host->Forward(at::Tensor()), ShapeError);
  EXPECT_THROW(host->Forward(Random({2, 5})), ShapeError);
  EXPECT_THROW(host->Forward(Tokens(2, 5, 31).to(at::kInt)), ShapeError);
  EXPECT_THROW(host->Forward(Tokens(2, 5, 31).flatten()), ShapeError);
  EXPECT_THROW(host->ForwardFromSegment("r0c1", Tokens(2, 5, 31)), ShapeError);
  EXPECT_THROW(host->ForwardFromSegment("r0c1", Random({2, 5, 8})), ShapeError);
}

TEST(TransformerHostTest, RefusesTokensOutsideTheVocabulary) {
  const auto host = MakeHost(Small());
  for (const int64_t token : {-1, 31}) {
    at::Tensor x = Tokens(2, 5, 31);
    x[1][3] = token;
    try {
      host->Forward(x);
      FAIL() << "accepted " << token;
    } catch (const InvalidArgumentError& error) {
      EXPECT_EQ(error.reason(), "BAD_TOKEN");
      EXPECT_THAT(error.what(), HasSubstr(std::to_string(token)));
    }
  }
}

TEST(TransformerHostTest, RefusesUnknownAndBackwardSegments) {
  const auto host = MakeHost(Small());
  const at::Tensor features = Random({1, 3, 16});
  EXPECT_THROW(host->ForwardToSegment("r1c0", Tokens(1, 3, 31)),
               InvalidArgumentError);
  EXPECT_THROW(host->ForwardToSegment("r0c0", features, "r0c1"),
               InvalidArgumentError);
  EXPECT_THROW(host->ForwardToSegment("r0c1", features, "r0c1"),
               InvalidArgumentError);
}

TEST(TransformerHostTest, RefusesOptionsOutsideTheirRange) {
  using Change = void (*)(TransformerHostOptions&);
  const std::vector<std::pair<std::string, Change>> changes = {
      {"vocab_size", [](auto& o) { o.vocab_size = 0; }},
      {"width", [](auto& o) { o.width = 0; }},
      {"heads", [](auto& o) { o.heads = 0; }},
      {"heads", [](auto& o) { o.heads = 3; }},
      {"layers", [](auto& o) { o.layers = 0; }},
      {"block_size", [](auto& o) { o.block_size = -1; }},
      {"segments", [](auto& o) { o.segments = 4; }},
      {"segments", [](auto& o) { o.segments = 7; }},
      {"dropout", [](auto& o) { o.dropout = 1; }},
      {"dropout", [](auto& o) { o.dropout = -0.1; }},
      {"dropout",
       [](auto& o) { o.dropout = std::numeric_limits<double>::quiet_NaN(); }},
  };
  for (const auto& [field, change] : changes) {
    TransformerHostOptions options = Small();
    change(options);
    const auto host = TransformerHost::Create(options, 1);
    EXPECT_THAT(host, Refused(absl::StatusCode::kInvalidArgument,
                              std::string("BAD_HOST_OPTION")));
    EXPECT_EQ(DetailOf(host.status())->field, field);
  }
}

// --- Initial weights ---

TEST(TransformerHostTest, WeightsComeFromTheSeedAndNoGlobalGenerator) {
  const at::Generator& global = at::detail::getDefaultCPUGenerator();
  const at::Tensor state = global.get_state();
  TransformerHostOptions options = Small();
  options.dropout = 0.2;
  const auto a = MakeHost(options);
  const auto b = MakeHost(options);
  const auto c = MakeHost(options, 2);
  for (size_t i = 0; i < a->parameters().size(); ++i) {
    EXPECT_TRUE(at::equal(a->parameters()[i], b->parameters()[i]));
  }
  for (const char* name : {"tok_emb.weight", "layers.5.mlp.c_proj.weight"}) {
    EXPECT_FALSE(
        at::equal(a->named_parameters()[name], c->named_parameters()[name]));
  }
  a->Forward(Tokens(2, 5, 31));  // Training mode: draws dropout masks.
  EXPECT_TRUE(at::equal(global.get_state(), state));
}

TEST(TransformerHostTest, InitialLossIsNearTheLogOfTheVocabulary) {
  TransformerHostOptions options = Small();
  options.vocab_size = 97;
  options.block_size = 64;
  EXPECT_NEAR(InitialLoss(options, 4), std::log(97.0), 0.3);
  // The published width with a vocabulary and depth that a test can afford.
  options = TransformerHostOptions();
  options.vocab_size = 8192;
  options.layers = 3;
  options.block_size = 128;
  EXPECT_NEAR(InitialLoss(options, 2), std::log(8192.0), 0.3);
}

TEST(TransformerHostTest, UpstreamProfileStartsFarFromTheLogOfTheVocabulary) {
  TransformerHostOptions options;
  options.vocab_size = 1024;
  options.layers = 3;
  options.block_size = 64;
  options.init_profile = slot::InitProfile::kUpstream;
  EXPECT_GT(InitialLoss(options, 2), 50.0);
}

TEST(TransformerHostTest, WeightsHaveTheDistributionOfTheirProfile) {
  TransformerHostOptions options = Small();
  options.width = 64;
  options.vocab_size = 400;
  const std::map<std::string, std::pair<double, double>> deviations = {
      // parameter, {live, upstream}; a uniform on [-b, b] has b / sqrt(3).
      {"tok_emb.weight", {0.02, 1}},
      {"pos_emb.weight", {0.02, 1}},
      {"layers.0.attn.c_attn.weight", {0.02, 1 / 8. / std::sqrt(3.)}},
      {"layers.5.attn.c_proj.weight",
       {0.02 / std::sqrt(12.), 1 / 8. / std::sqrt(3.)}},
      {"layers.2.mlp.c_fc.weight", {0.02, 1 / 8. / std::sqrt(3.)}},
      {"layers.2.mlp.c_proj.weight",
       {0.02 / std::sqrt(12.), 1 / 16. / std::sqrt(3.)}},
      {"layers.2.mlp.c_fc.bias", {0, 1 / 8. / std::sqrt(3.)}},
  };
  for (const bool live : {true, false}) {
    options.init_profile =
        live ? slot::InitProfile::kLive : slot::InitProfile::kUpstream;
    const auto host = MakeHost(options);
    for (const auto& [name, by_profile] : deviations) {
      const at::Tensor weight = host->named_parameters()[name].detach();
      const double expected = live ? by_profile.first : by_profile.second;
      EXPECT_NEAR(weight.std().item<double>(), expected, 0.1 * expected)
          << name;
    }
    EXPECT_TRUE(
        at::equal(host->named_parameters()["ln_f.weight"], at::ones({64})));
    EXPECT_TRUE(at::equal(host->named_parameters()["layers.3.ln1.bias"],
                          at::zeros({64})));
  }
}

TEST(TransformerHostTest, HostMadeUnderInferenceModeCanBeTrained) {
  std::shared_ptr<TransformerHost> host;
  {
    c10::InferenceMode inference;
    host = MakeHost(Small());
  }
  host->Forward(Tokens(2, 5, 31)).sum().backward();
  for (const at::Tensor& parameter : host->parameters()) {
    EXPECT_TRUE(parameter.grad().defined());
  }
}

// --- Dropout ---

TEST(SeededDropoutTest, ZeroesItsShareAndKeepsTheMean) {
  SeededDropout dropout(0.25, 5);
  const at::Tensor x = at::ones({200, 500});
  const at::Tensor y = dropout.Apply(x);
  EXPECT_NEAR((y == 0).to(at::kDouble).mean().item<double>(), 0.25, 0.01);
  EXPECT_NEAR(y.mean().item<double>(), 1, 0.02);
  EXPECT_NEAR(y.max().item<double>(), 1 / 0.75, 1e-6);
  EXPECT_FALSE(at::equal(dropout.Apply(x), y));
  dropout.Seed(5);
  EXPECT_TRUE(at::equal(dropout.Apply(x), y));
  dropout.Seed(6);
  EXPECT_FALSE(at::equal(dropout.Apply(x), y));
}

TEST(SeededDropoutTest, GradientFlowsWhereItKept) {
  SeededDropout dropout(0.5, 5);
  const at::Tensor x = Random({50}).requires_grad_();
  const at::Tensor y = dropout.Apply(x);
  y.sum().backward();
  EXPECT_TRUE(at::allclose(y, x * x.grad()));
}

TEST(SeededDropoutTest, AttentionDropsWeightsNotThePast) {
  const at::Tensor qkv = Random({2, 6, 24}).to(at::kDouble);
  const at::Tensor plain = CausalAttention(qkv, 2);
  // So rarely that none of these few weights is dropped: the spelled-out path.
  SeededDropout rare(1e-12, 5);
  EXPECT_TRUE(at::allclose(CausalAttention(qkv, 2, &rare), plain));
  SeededDropout none(0, 5);
  EXPECT_TRUE(at::equal(CausalAttention(qkv, 2, &none), plain));
  SeededDropout often(0.5, 5);
  EXPECT_FALSE(at::allclose(CausalAttention(qkv, 2, &often), plain));
}

TEST(TransformerHostTest, DropsInTrainingModeOnly) {
  TransformerHostOptions options = Small();
  options.dropout = 0.3;
  const auto host = MakeHost(options);
  const at::Tensor x = Tokens(2, 8, 31);
  EXPECT_FALSE(at::equal(host->Forward(x), host->Forward(x)));
  host->eval();
  const at::Tensor y = host->Forward(x);
  EXPECT_TRUE(at::equal(host->Forward(x), y));
  options.dropout = 0;
  const auto plain = MakeHost(options);  // In training mode.
  EXPECT_TRUE(at::equal(plain->Forward(x), y));
}

TEST(TransformerHostTest, TrainingRunsFromEqualSeedsAreEqual) {
  TransformerHostOptions options = Small();
  options.dropout = 0.3;
  const auto a = MakeHost(options);
  const auto b = MakeHost(options);
  const at::Tensor x = Tokens(2, 8, 31);
  for (int step = 0; step < 3; ++step) {
    // Masks depend on the operations run, not on how the walk is divided.
    const at::Tensor walked =
        b->ForwardFromSegment("r0c1", b->ForwardToSegment("r0c1", x));
    EXPECT_TRUE(at::equal(a->Forward(x), walked));
  }
  a->SeedDropout(40);
  const at::Tensor first = a->Forward(x);
  const at::Tensor second = a->Forward(x);
  EXPECT_FALSE(at::equal(first, second));
  a->SeedDropout(40);
  EXPECT_TRUE(at::equal(a->Forward(x), first));
}

}  // namespace
}  // namespace esper::host
