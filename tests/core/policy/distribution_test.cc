// Masks between heads, floors and choices against plain C++ references.
#include <cmath>
#include <random>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/ops/full.h"
#include "ATen/ops/linspace.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/tensor.h"
#include "ATen/ops/zeros.h"
#include "core/policy/counter_noise.h"
#include "core/policy/head_layout.h"
#include "core/policy/masked_categorical.h"
#include "gtest/gtest.h"
#include "tests/core/policy/test_specs.h"

namespace esper::policy {
namespace {

constexpr int kRows = 10000;
constexpr uint32_t kSeed = 20240607;

using Mask = std::vector<bool>;

// The mask in force of one head of one row, by the rules as they are told.
Mask NaiveMask(const PolicySpec& spec, int64_t k, const Mask& base,
               const std::vector<int64_t>& actions,
               const std::vector<Mask>& conditional) {
  const HeadSpec& head = spec.heads[k];
  const int64_t driver = spec.DriverOf(k);
  Mask mask = base;
  if (driver < 0) return mask;
  const int64_t choice = actions[driver];
  if (head.conditional_mask && !conditional.empty()) mask = conditional[choice];
  for (const int64_t relevant : head.relevant_when) {
    if (relevant == choice) return mask;
  }
  int64_t held = 0;
  if (head.placeholder.has_value()) {
    held = *head.placeholder;
  } else {
    for (int64_t j = head.size - 1; j >= 0; --j) {
      if (mask[j]) held = j;
    }
  }
  Mask single(head.size, false);
  single[held] = true;
  return single;
}

struct RandomRows {
  at::Tensor masks, conditional, actions;
};

RandomRows MakeRows(const PolicySpec& spec, const HeadLayout& layout, int rows,
                    std::mt19937& random) {
  RandomRows result;
  result.masks = at::zeros({rows, layout.width()}, at::kBool);
  bool* mask = result.masks.mutable_data_ptr<bool>();
  // Sparse, dense and empty rows.
  for (int64_t i = 0; i < result.masks.numel(); ++i) {
    mask[i] = random() % 4 < i / layout.width() % 5;
  }
  result.actions = at::zeros({rows, layout.num_heads()}, at::kLong);
  int64_t* action = result.actions.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < result.actions.numel(); ++i) {
    action[i] = random() % layout.size(i % layout.num_heads());
  }
  const int64_t k = layout.conditional_head();
  if (k >= 0) {
    result.conditional = at::zeros(
        {rows, layout.size(layout.driver(k)), layout.size(k)}, at::kBool);
    bool* cell = result.conditional.mutable_data_ptr<bool>();
    for (int64_t i = 0; i < result.conditional.numel(); ++i) {
      cell[i] = random() % 3 == 0;
    }
  }
  return result;
}

TEST(HeadLayoutTest, EffectiveMasksEqualTheNaiveRules) {
  std::mt19937 random(kSeed);
  for (const PolicySpec& spec : AllTestSpecs()) {
    ASSERT_TRUE(spec.Validate().ok()) << spec.name;
    const HeadLayout layout(spec);
    for (const bool with_conditional : {true, false}) {
      const RandomRows rows = MakeRows(spec, layout, kRows, random);
      const at::Tensor conditional =
          with_conditional ? rows.conditional : at::Tensor();
      const at::Tensor before = rows.masks.clone();
      const at::Tensor effective =
          layout.EffectiveMasks(rows.masks, conditional, rows.actions);
      EXPECT_TRUE(rows.masks.equal(before)) << "the input was written to";
      EXPECT_FALSE(effective.is_alias_of(rows.masks));

      const bool* masks = rows.masks.const_data_ptr<bool>();
      const bool* actual = effective.const_data_ptr<bool>();
      const int64_t* action = rows.actions.const_data_ptr<int64_t>();
      for (int64_t n = 0; n < kRows; ++n) {
        const std::vector<int64_t> chosen(
            action + n * layout.num_heads(),
            action + (n + 1) * layout.num_heads());
        for (int64_t k = 0; k < layout.num_heads(); ++k) {
          const int64_t at = n * layout.width() + layout.offset(k);
          std::vector<Mask> table;
          if (conditional.defined() && k == layout.conditional_head()) {
            const bool* cell = conditional.const_data_ptr<bool>();
            const int64_t choices = conditional.size(1);
            for (int64_t c = 0; c < choices; ++c) {
              const bool* row = cell + (n * choices + c) * layout.size(k);
              table.emplace_back(row, row + layout.size(k));
            }
          }
          const Mask expected =
              NaiveMask(spec, k, Mask(masks + at, masks + at + layout.size(k)),
                        chosen, table);
          const Mask got(actual + at, actual + at + layout.size(k));
          ASSERT_EQ(got, expected)
              << spec.name << " row " << n << " head " << spec.heads[k].name;
        }
      }
    }
  }
}

TEST(HeadLayoutTest, AbsentMasksAllowEverything) {
  std::mt19937 random(kSeed);
  for (const PolicySpec& spec : AllTestSpecs()) {
    const HeadLayout layout(spec);
    const RandomRows rows = MakeRows(spec, layout, 50, random);
    EXPECT_TRUE(
        layout.EffectiveMasks({}, {}, rows.actions)
            .equal(layout.EffectiveMasks(
                at::ones(rows.masks.sizes(), at::kBool), {}, rows.actions)));
  }
}

TEST(HeadLayoutTest, RelevanceAndAvailabilityFollowTheTable) {
  std::mt19937 random(kSeed);
  for (const PolicySpec& spec : AllTestSpecs()) {
    const HeadLayout layout(spec);
    const RandomRows rows = MakeRows(spec, layout, 500, random);
    const at::Tensor relevance = layout.Relevance(rows.actions);
    const at::Tensor available = layout.Availability(rows.masks);
    for (int64_t n = 0; n < 500; ++n) {
      for (int64_t k = 0; k < layout.num_heads(); ++k) {
        const int64_t d = spec.DriverOf(k);
        bool relevant = d < 0;
        bool possible = d < 0;
        for (const int64_t choice : spec.heads[k].relevant_when) {
          relevant = relevant || rows.actions[n][d].item<int64_t>() == choice;
          possible =
              possible || rows.masks[n][layout.offset(d) + choice].item<bool>();
        }
        ASSERT_EQ(relevance[n][k].item<bool>(), relevant);
        ASSERT_EQ(available[n][k].item<bool>(), possible);
      }
    }
  }
}

TEST(HeadLayoutTest, GatherUndoesTheLevels) {
  for (const PolicySpec& spec : AllTestSpecs()) {
    const HeadLayout layout(spec);
    std::vector<at::Tensor> parts;
    for (const HeadLevel& level : layout.levels()) {
      parts.push_back(level.head_index.unsqueeze(0));
    }
    const at::Tensor gathered = layout.Gather(parts);
    for (int64_t k = 0; k < layout.num_heads(); ++k) {
      EXPECT_EQ(gathered[0][k].item<int64_t>(), k);
    }
  }
}

// Section 8 in double, one row of one head.
struct Naive {
  std::vector<double> p, log_p;
  double entropy = 0;
};

Naive NaiveDistribution(const std::vector<double>& logits, const Mask& allowed,
                        FloorMode mode, double floor) {
  const size_t size = logits.size();
  double n = 0;
  double largest = -1e300;
  for (size_t j = 0; j < size; ++j) {
    n += allowed[j];
    if (allowed[j]) largest = std::max(largest, logits[j]);
  }
  Naive out;
  out.p.assign(size, 0);
  out.log_p.assign(size, 0);
  double total = 0;
  for (size_t j = 0; j < size; ++j) {
    if (allowed[j]) out.p[j] = std::exp(logits[j] - largest);
    total += out.p[j];
  }
  for (double& p : out.p) p /= total;
  const double f = std::min(floor, 0.99 / n);
  if (mode == FloorMode::kMixture && floor > 0) {
    for (size_t j = 0; j < size; ++j) {
      if (allowed[j]) out.p[j] = (1 - n * f) * out.p[j] + f;
    }
  } else if (mode == FloorMode::kUpstream && floor > 0) {
    double need = 0;
    double mass = 0;
    for (size_t j = 0; j < size; ++j) {
      if (!allowed[j]) continue;
      out.p[j] < f ? need += f : mass += out.p[j];
    }
    const double scale = std::max(1 - need, 1e-8) / std::max(mass, 1e-8);
    double sum = 0;
    for (size_t j = 0; j < size; ++j) {
      if (!allowed[j]) continue;
      out.p[j] = out.p[j] < f ? f : out.p[j] * scale;
      sum += out.p[j];
    }
    for (double& p : out.p) p /= sum;
  }
  for (size_t j = 0; j < size; ++j) {
    if (!allowed[j]) continue;
    out.log_p[j] = std::log(out.p[j]);
    out.entropy -= out.p[j] * out.log_p[j];
  }
  out.entropy = n > 1 ? out.entropy / std::log(n) : 0;
  return out;
}

// T18, the distributions: 10^4 random rows of every head of a level.
TEST(MaskedCategoricalTest, EqualsANaiveReferenceOnRandomRows) {
  std::mt19937 random(kSeed);
  std::normal_distribution<float> normal(0, 3);
  const PolicySpec spec = SmallNetworkGrowing(3);
  const HeadLayout layout(spec);
  for (const FloorMode mode :
       {FloorMode::kNone, FloorMode::kUpstream, FloorMode::kMixture}) {
    FloorSettings floors{mode, {}};
    for (int64_t k = 0; k < layout.num_heads(); ++k) {
      floors.floors.push_back(k == 2 ? 0 : 0.03 * (k + 1));
    }
    const auto tensors = layout.FloorTensors(floors);
    at::Tensor logits = at::zeros({kRows, layout.width()}, at::kFloat);
    for (int64_t i = 0; i < logits.numel(); ++i) {
      logits.mutable_data_ptr<float>()[i] = normal(random);
    }
    const RandomRows rows = MakeRows(spec, layout, kRows, random);
    for (size_t i = 0; i < layout.levels().size(); ++i) {
      const HeadLevel& level = layout.levels()[i];
      const MaskedCategorical choices(layout.ToBlock(level, logits),
                                      layout.MaskBlock(level, rows.masks),
                                      level.fill, mode, tensors[i]);
      const at::Tensor p = choices.Probs().contiguous();
      const at::Tensor log_p = choices.log_probs().contiguous();
      const at::Tensor entropy = choices.Entropy().contiguous();
      const int64_t heads = static_cast<int64_t>(level.heads.size());
      for (int64_t n = 0; n < kRows; ++n) {
        for (int64_t h = 0; h < heads; ++h) {
          const int64_t k = level.heads[h];
          std::vector<double> row;
          Mask allowed;
          double count = 0;
          for (int64_t j = 0; j < layout.size(k); ++j) {
            const int64_t at = n * layout.width() + layout.offset(k) + j;
            row.push_back(logits.const_data_ptr<float>()[at]);
            allowed.push_back(rows.masks.const_data_ptr<bool>()[at]);
            count += allowed.back();
          }
          const float* got =
              p.const_data_ptr<float>() + (n * heads + h) * level.width;
          const float* got_log =
              log_p.const_data_ptr<float>() + (n * heads + h) * level.width;
          const float got_entropy =
              entropy.const_data_ptr<float>()[n * heads + h];
          if (count == 0) {  // Uniform, and refused by whoever asks.
            ASSERT_NEAR(got[0], 1.0 / layout.size(k), 1e-6);
            ASSERT_EQ(got_entropy, 0);
            continue;
          }
          const Naive naive =
              NaiveDistribution(row, allowed, mode, floors.floors[k]);
          double sum = 0;
          for (int64_t j = 0; j < level.width; ++j) {
            sum += got[j];
            if (j >= layout.size(k) || !allowed[j]) {
              ASSERT_EQ(got[j], 0);
              continue;
            }
            ASSERT_NEAR(got[j], naive.p[j], 2e-6);
            ASSERT_NEAR(got_log[j], naive.log_p[j],
                        2e-5 + 1e-4 * std::fabs(naive.log_p[j]));
            if (mode == FloorMode::kMixture && floors.floors[k] > 0) {
              ASSERT_GE(got[j],
                        std::min(floors.floors[k], 0.99 / count) - 1e-6);
            }
            if (count == 1) {
              ASSERT_EQ(got_log[j], 0);
            }
          }
          ASSERT_NEAR(sum, 1, 1e-5);
          ASSERT_NEAR(got_entropy, naive.entropy, 2e-5);
          ASSERT_LE(got_entropy, 1 + 1e-5);
          if (count == 1) {
            ASSERT_EQ(got_entropy, 0);
          }
        }
      }
    }
  }
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

TEST(CounterNoiseTest, PhiloxGivesItsPublishedVectors) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t ones = 0xffffffff;
  EXPECT_EQ(Philox4x32({ones, ones, ones, ones}, {ones, ones}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                       {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(CounterNoiseTest, FollowsItsFormula) {
  // Word 1 of block 2 of head 3 at step 2^32 + 5.
  const std::array<uint32_t, 4> words =
      Philox4x32({5, 1, 3, 2}, {0x89abcdef, 0x01234567});
  const double u = ((words[1] >> 8) + 0.5) / 16777216.0;
  EXPECT_FLOAT_EQ(CounterNoise(0x0123456789abcdef, (1ull << 32) + 5, 3, 9),
                  static_cast<float>(-std::log(u)));
}

TEST(CounterNoiseTest, DependsOnTheRowsKeyAlone) {
  const HeadLayout layout(SmallNetworkGrowing(3));
  const std::vector<NoiseKey> keys = {{1, 0}, {1, 1}, {2, 0}, {9, 7}};
  const at::Tensor all = CounterNoise(keys, layout);
  for (size_t i = 0; i < keys.size(); ++i) {
    EXPECT_TRUE(CounterNoise({keys[i]}, layout)[0].equal(all[i]));
    for (size_t j = 0; j < i; ++j) EXPECT_FALSE(all[i].equal(all[j]));
  }
  for (int64_t k = 0; k < layout.num_heads(); ++k) {
    for (int64_t j = 0; j < layout.size(k); ++j) {
      EXPECT_EQ(all[3][layout.offset(k) + j].item<float>(),
                CounterNoise(9, 7, k, j));
    }
  }
}

TEST(CounterNoiseTest, IsExponential) {
  const HeadLayout layout(SmallNetworkGrowing(3));
  std::vector<NoiseKey> keys;
  for (uint64_t step = 0; step < 5000; ++step) keys.push_back({42, step});
  const at::Tensor noise = CounterNoise(keys, layout).to(at::kDouble);
  EXPECT_GT(noise.min().item<double>(), 0);
  EXPECT_NEAR(noise.mean().item<double>(), 1, 0.01);
  EXPECT_NEAR(noise.var().item<double>(), 1, 0.03);
  EXPECT_NEAR(noise.lt(std::log(2.0)).to(at::kDouble).mean().item<double>(),
              0.5, 0.005);
}

}  // namespace
}  // namespace esper::policy
