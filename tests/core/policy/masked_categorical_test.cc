// Floors, probabilities and choices against the naive rules.
#include "core/policy/masked_categorical.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/ops/full.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/tensor.h"
#include "ATen/ops/zeros.h"
#include "core/policy/head_layout.h"
#include "gtest/gtest.h"
#include "tests/core/policy/naive_policy.h"
#include "tests/core/policy/test_specs.h"

namespace esper::policy {
namespace {

constexpr uint32_t kSeed = 20240607;

constexpr FloorMode kAllModes[] = {FloorMode::kNone, FloorMode::kUpstream,
                                   FloorMode::kExact, FloorMode::kMixture};

// One head of one row, as the block gives it and as it was asked for.
struct RowOfHead {
  const float* p;
  const float* log_p;
  float entropy;
  std::vector<double> logits;
  Mask allowed;
  int64_t width;  // Of the block; cells past the logits are padding.
};

void ExpectEqualsNaive(const RowOfHead& row, FloorMode mode, double floor) {
  const auto size = static_cast<int64_t>(row.logits.size());
  double count = 0;
  for (const bool allowed : row.allowed) count += allowed;
  if (count == 0) {  // Uniform, and refused by whoever asks.
    ASSERT_NEAR(row.p[0], 1.0 / static_cast<double>(size), 1e-6);
    ASSERT_EQ(row.entropy, 0);
    return;
  }
  const Naive naive = NaiveDistribution(row.logits, row.allowed, mode, floor);
  const double capped = std::min(floor, 0.99 / count);
  double sum = 0;
  for (int64_t j = 0; j < row.width; ++j) {
    sum += row.p[j];
    if (j >= size || !row.allowed[j]) {
      ASSERT_EQ(row.p[j], 0);
      continue;
    }
    ASSERT_NEAR(row.p[j], naive.p[j], 2e-6);
    ASSERT_NEAR(row.log_p[j], naive.log_p[j],
                2e-5 + 1e-4 * std::fabs(naive.log_p[j]));
    if (mode == FloorMode::kMixture || mode == FloorMode::kExact) {
      ASSERT_GE(row.p[j], capped - 1e-6);
    }
    if (count == 1) {
      ASSERT_EQ(row.log_p[j], 0);
    }
  }
  ASSERT_NEAR(sum, 1, 1e-5);
  ASSERT_NEAR(row.entropy, naive.entropy, 2e-5);
  ASSERT_LE(row.entropy, 1 + 1e-5);
  if (count == 1) {
    ASSERT_EQ(row.entropy, 0);
  }
}

// All heads of `rows` random rows under random floors.
void CheckRandomRows(const PolicySpec& spec, FloorMode mode, int rows,
                     std::mt19937& random) {
  std::normal_distribution<float> normal(0, 3);
  const HeadLayout layout(spec);
  FloorSettings floors{mode, {}};
  for (int64_t k = 0; k < layout.num_heads(); ++k) {
    floors.floors.push_back(random() % 4 == 0 ? 0 : random() % 300 * 1e-3);
  }
  const auto tensors = layout.FloorTensors(floors);
  at::Tensor logits = at::zeros({rows, layout.width()}, at::kFloat);
  for (int64_t i = 0; i < logits.numel(); ++i) {
    logits.mutable_data_ptr<float>()[i] = normal(random);
  }
  const at::Tensor masks = MakeRows(spec, layout, rows, random).masks;
  for (size_t i = 0; i < layout.levels().size(); ++i) {
    const HeadLevel& level = layout.levels()[i];
    const MaskedCategorical choices(layout.ToBlock(level, logits),
                                    layout.MaskBlock(level, masks), level.fill,
                                    mode, tensors[i]);
    const at::Tensor p = choices.Probs().contiguous();
    const at::Tensor log_p = choices.log_probs().contiguous();
    const at::Tensor entropy = choices.Entropy().contiguous();
    const auto heads = static_cast<int64_t>(level.heads.size());
    for (int64_t n = 0; n < rows; ++n) {
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t k = level.heads[h];
        const int64_t block = (n * heads + h) * level.width;
        const int64_t at = n * layout.width() + layout.offset(k);
        const float* logit = logits.const_data_ptr<float>() + at;
        const bool* allowed = masks.const_data_ptr<bool>() + at;
        ExpectEqualsNaive({p.const_data_ptr<float>() + block,
                           log_p.const_data_ptr<float>() + block,
                           entropy.const_data_ptr<float>()[n * heads + h],
                           {logit, logit + layout.size(k)},
                           Mask(allowed, allowed + layout.size(k)),
                           level.width},
                          mode, floors.floors[k]);
        if (::testing::Test::HasFatalFailure()) {
          FAIL() << spec.name << ", " << FloorModeName(mode) << ", row " << n
                 << ", head " << spec.heads[k].name;
        }
      }
    }
  }
}

// T18, the distributions: 10^4 random rows of every head of every
// specification, divided among the kinds of floor.
TEST(MaskedCategoricalTest, EqualsANaiveReferenceOnRandomRows) {
  std::mt19937 random(kSeed);
  for (const PolicySpec& spec : AllTestSpecs()) {
    for (const FloorMode mode : kAllModes) {
      ASSERT_NO_FATAL_FAILURE(
          CheckRandomRows(spec, mode, /*rows=*/2500, random));
    }
  }
}

// p = softmax(logits) with floors, three choices.
at::Tensor Floored(FloorMode mode, const std::vector<double>& probabilities,
                   double floor) {
  const auto n = static_cast<int64_t>(probabilities.size());
  return MaskedCategorical(
             at::tensor(probabilities).log().to(at::kFloat).view({1, 1, n}),
             at::ones({1, 1, n}, at::kBool), {}, mode,
             at::full({1}, floor, at::kFloat))
      .Probs()[0][0];
}

TEST(MaskedCategoricalTest, OnlyExactAndMixtureKeepTheFloor) {
  // Raising the first to 0.2 pushes the second, a hair above, below it.
  const std::vector<double> p = {0.01, 0.205, 0.785};
  EXPECT_LT(Floored(FloorMode::kUpstream, p, 0.2).min().item<float>(), 0.17);
  const at::Tensor exact = Floored(FloorMode::kExact, p, 0.2);
  EXPECT_NEAR(exact[0].item<float>(), 0.2, 1e-6);
  EXPECT_NEAR(exact[1].item<float>(), 0.2, 1e-6);
  EXPECT_NEAR(exact[2].item<float>(), 0.6, 1e-6);
  EXPECT_GE(Floored(FloorMode::kMixture, p, 0.2).min().item<float>(), 0.2);
}

TEST(MaskedCategoricalTest, ExactTakesAsManyPassesAsItNeeds) {
  // Each raise pushes the next entry below the floor, and that one alone.
  const double f = 0.18;
  std::vector<double> p = {0.05};
  double rest = 1 - p[0];
  for (const double below : {3e-3, 5e-4, 5e-5}) {
    const double scale = (1 - static_cast<double>(p.size()) * f) / rest;
    p.push_back(f / scale - below);
    rest -= p.back();
  }
  p.push_back(rest);
  ASSERT_LT(Floored(FloorMode::kUpstream, p, f).min().item<float>(), f - 1e-3);
  const at::Tensor exact = Floored(FloorMode::kExact, p, f);
  EXPECT_GE(exact.min().item<float>(), f - 1e-6);
  EXPECT_NEAR(exact.sum().item<float>(), 1, 1e-6);
  EXPECT_NEAR(exact[4].item<float>(), 1 - 4 * f, 1e-5);
}

TEST(MaskedCategoricalTest, ExactIsUpstreamWhereOnePassIsEnough) {
  const std::vector<double> p = {0.01, 0.3, 0.69};
  EXPECT_TRUE(Floored(FloorMode::kExact, p, 0.1)
                  .equal(Floored(FloorMode::kUpstream, p, 0.1)));
}

TEST(MaskedCategoricalTest, ExactClipsWithoutAGradientAndScalesWithOne) {
  // Two entries over the floor: both get a gradient, the clipped one none.
  at::Tensor logits =
      at::tensor({-4.0f, 1.0f, 2.0f}).view({1, 1, 3}).requires_grad_(true);
  const MaskedCategorical choices(logits, at::ones({1, 1, 3}, at::kBool), {},
                                  FloorMode::kExact,
                                  at::full({1}, 0.1, at::kFloat));
  choices.LogProb(at::full({1, 1}, 2, at::kLong)).sum().backward();
  const at::Tensor gradient = logits.grad().view({3});
  EXPECT_NEAR(gradient[0].item<float>(), 0, 1e-6);
  EXPECT_GT(gradient[2].item<float>(), 0.1);
  EXPECT_NEAR(gradient.sum().item<float>(), 0, 1e-6);
}

TEST(FloorSettingsTest, AreAnnealedByAFactor) {
  const PolicySpec spec = SmallNetworkGrowing(3);
  const FloorSettings floors = spec.Floors();
  EXPECT_EQ(floors.Scaled(1), floors);
  const FloorSettings half = floors.Scaled(0.5);
  EXPECT_EQ(half.mode, floors.mode);
  for (size_t k = 0; k < floors.floors.size(); ++k) {
    EXPECT_DOUBLE_EQ(half.floors[k], floors.floors[k] / 2);
  }
  // Nothing is left of them at 0: not even an operation.
  for (const at::Tensor& level :
       HeadLayout(spec).FloorTensors(floors.Scaled(0))) {
    EXPECT_FALSE(level.defined());
  }
  EXPECT_NE(floors.Scaled(0), floors);
}

TEST(MaskedCategoricalTest, MixtureSendsAGradientToFlooredChoices) {
  const auto gradient = [](FloorMode mode) {
    at::Tensor logits =
        at::tensor({4.0f, -4.0f, -4.0f}).view({1, 1, 3}).requires_grad_(true);
    const MaskedCategorical choices(logits, at::ones({1, 1, 3}, at::kBool), {},
                                    mode, at::full({1}, 0.1, at::kFloat));
    choices.LogProb(at::ones({1, 1}, at::kLong)).sum().backward();
    return logits.grad().abs().max().item<float>();
  };
  EXPECT_EQ(gradient(FloorMode::kUpstream), 0);
  EXPECT_GT(gradient(FloorMode::kMixture), 1e-4);
}

TEST(MaskedCategoricalTest, SamplesWithTheProbabilitiesItStates) {
  const at::Tensor logits = at::tensor({0.0f, 1.0f, 2.0f, 5.0f});
  const at::Tensor allowed = at::tensor({1, 1, 1, 0}).to(at::kBool);
  const int64_t draws = 200000;
  const MaskedCategorical choices(
      logits.expand({draws, 1, 4}), allowed.expand({draws, 1, 4}), {},
      FloorMode::kMixture, at::full({1}, 0.1, at::kFloat));
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(kSeed);
  const at::Tensor noise = at::ones({draws, 1, 4}).exponential_(1.0, generator);
  const at::Tensor chosen = choices.Sample(noise);
  const at::Tensor p = choices.Probs()[0][0];
  for (int64_t j = 0; j < 4; ++j) {
    const double expected = p[j].item<double>();
    const double rate =
        chosen.eq(j).sum().item<double>() / static_cast<double>(draws);
    EXPECT_NEAR(rate, expected,
                5 * std::sqrt(expected * (1 - expected) / draws) + 1e-9)
        << "choice " << j;
  }
}

TEST(MaskedCategoricalTest, TakesTheFirstOfEqualChoices) {
  const MaskedCategorical choices(
      at::zeros({2, 1, 5}),
      at::tensor({0, 1, 1, 0, 1}).to(at::kBool).expand({2, 1, 5}), {},
      FloorMode::kNone, {});
  EXPECT_EQ(choices.ArgMax()[0][0].item<int64_t>(), 1);
  const at::Tensor mixed = choices.Sample(
      at::tensor({9.0f, 5.0f, 1.0f, 9.0f, 5.0f}).expand({2, 1, 5}),
      at::tensor({1, 0}).to(at::kBool));
  EXPECT_EQ(mixed[0][0].item<int64_t>(), 1);  // Deterministic.
  EXPECT_EQ(mixed[1][0].item<int64_t>(), 2);  // Smallest noise wins.
}

}  // namespace
}  // namespace esper::policy
