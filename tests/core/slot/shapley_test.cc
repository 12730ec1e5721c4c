// Sampled Shapley values: drawn rings of players, plans that hold them, and
// what attribution makes of them.

#include "core/slot/shapley.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/slot/counterfactual.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::slot {
namespace {

using ::esper::testing::Refused;
using ::testing::UnorderedElementsAreArray;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::vector<double> RandomGame(int n, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> uniform(0, 100);
  std::vector<double> lattice(size_t{1} << n);
  for (double& worth : lattice) worth = uniform(random);
  return lattice;
}

std::vector<ShapleyEstimate> Estimate(const std::vector<double>& lattice, int n,
                                      int cycles, uint64_t seed) {
  return ShapleySample::Draw(n, cycles, seed)
      ->Estimate([&](uint64_t coalition) { return lattice[coalition]; });
}

// The mean over `orders` independent orders.
std::vector<double> PlainSampling(const std::vector<double>& lattice, int n,
                                  int orders, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::vector<double> values(n, 0.0);
  for (int k = 0; k < orders; ++k) {
    std::shuffle(order.begin(), order.end(), random);
    uint64_t coalition = 0;
    for (const int player : order) {
      const uint64_t joined = coalition | uint64_t{1} << player;
      values[player] += (lattice[joined] - lattice[coalition]) / orders;
      coalition = joined;
    }
  }
  return values;
}

TEST(ShapleySampleTest, AllRingsTogetherGiveTheExactValues) {
  for (int n = 3; n <= 7; ++n) {
    SCOPED_TRACE(n);
    const std::vector<double> lattice = RandomGame(n, n);
    const int rings = static_cast<int>(std::lround(std::tgamma(n) / 2));
    const auto sample = ShapleySample::Draw(n, 1000, /*seed=*/1).value();
    ASSERT_EQ(sample.rings().size(), rings);
    const std::vector<double> exact = ShapleyValues(lattice).value();
    const auto estimates = Estimate(lattice, n, 1000, /*seed=*/1);
    for (int i = 0; i < n; ++i) {
      EXPECT_NEAR(estimates[i].value, exact[i], 1e-9);
      EXPECT_EQ(estimates[i].standard_error, 0.0);
    }
  }
}

TEST(ShapleySampleTest, ConvergesToTheExactValues) {
  for (int n = 5; n <= 8; ++n) {
    SCOPED_TRACE(n);
    const std::vector<double> lattice = RandomGame(n, n);
    const std::vector<double> exact = ShapleyValues(lattice).value();
    double before = 1e9;
    for (const int cycles : {2, 8, 32, 128, 1000}) {
      // Root of the mean square error over draws and players.
      double squares = 0;
      constexpr int kDraws = 40;
      for (int draw = 0; draw < kDraws; ++draw) {
        const auto estimates = Estimate(lattice, n, cycles, 1000 + draw);
        for (int i = 0; i < n; ++i) {
          squares += std::pow(estimates[i].value - exact[i], 2);
        }
      }
      const double error = std::sqrt(squares / (kDraws * n));
      EXPECT_LT(error, before == 0 ? 1e-9 : 0.75 * before + 1e-9) << cycles;
      before = error;
    }
    EXPECT_LT(before, 1.0);  // Of games whose worths spread over 100.
  }
}

TEST(ShapleySampleTest, EstimatesSumToTheWholeExactly) {
  for (int n = 5; n <= 8; ++n) {
    const std::vector<double> lattice = RandomGame(n, 3 * n);
    for (const int cycles : {1, 2, 5}) {
      double sum = 0;
      for (const auto& estimate : Estimate(lattice, n, cycles, 7)) {
        sum += estimate.value;
      }
      EXPECT_NEAR(sum, lattice.back() - lattice.front(), 1e-10);
    }
  }
}

TEST(ShapleySampleTest, AdditiveGamesAreExactFromASingleRing) {
  constexpr int kPlayers = 8;
  std::vector<double> lattice(size_t{1} << kPlayers);
  for (size_t mask = 0; mask < lattice.size(); ++mask) {
    for (int i = 0; i < kPlayers; ++i) {
      if (mask >> i & 1) lattice[mask] += 1.5 * i - 4;
    }
  }
  const auto estimates = Estimate(lattice, kPlayers, 1, 3);
  for (int i = 0; i < kPlayers; ++i) {
    EXPECT_NEAR(estimates[i].value, 1.5 * i - 4, 1e-12);
    EXPECT_FALSE(estimates[i].standard_error.has_value());
  }
  for (const auto& estimate : Estimate(lattice, kPlayers, 3, 3)) {
    EXPECT_NEAR(estimate.standard_error.value(), 0.0, 1e-12);
  }
}

TEST(ShapleySampleTest, TheSameSeedGivesTheSameRings) {
  const auto a = ShapleySample::Draw(8, 4, 99).value();
  const auto b = ShapleySample::Draw(8, 4, 99).value();
  const auto c = ShapleySample::Draw(8, 4, 100).value();
  EXPECT_EQ(a.rings(), b.rings());
  EXPECT_NE(a.rings(), c.rings());
  EXPECT_EQ(a.orders(), 4 * 16);
  // The same on every machine and library.
  EXPECT_EQ(ShapleySample::Draw(5, 1, 0)->rings()[0],
            (ShapleySample::Ring{0, 1, 2, 4, 3}));
}

TEST(ShapleySampleTest, RingsDifferAndAreDrawnEvenly) {
  // The 12 rings of 5 players, each expected 500 times.
  std::map<ShapleySample::Ring, int> counts;
  for (uint64_t seed = 0; seed < 6000; ++seed) {
    ++counts[ShapleySample::Draw(5, 1, seed)->rings()[0]];
  }
  EXPECT_EQ(counts.size(), 12);
  for (const auto& [ring, count] : counts) EXPECT_NEAR(count, 500, 110);
  const auto all = ShapleySample::Draw(5, 12, 5).value();
  EXPECT_EQ(
      std::set<ShapleySample::Ring>(all.rings().begin(), all.rings().end())
          .size(),
      12);
}

TEST(ShapleySampleTest, ARingNeedsItsArcsAlone) {
  const auto sample = ShapleySample::Draw(6, 1, 4).value();
  const std::vector<uint64_t> coalitions = sample.Coalitions(0);
  EXPECT_EQ(coalitions.size(), 6 * 5 + 2);
  EXPECT_EQ(std::set<uint64_t>(coalitions.begin(), coalitions.end()).size(),
            coalitions.size());
  std::set<uint64_t> asked;
  sample.Estimate([&](uint64_t coalition) {
    asked.insert(coalition);
    return 0.0;
  });
  EXPECT_THAT(coalitions, UnorderedElementsAreArray(asked));
}

TEST(ShapleySampleTest, VariesLessThanPlainSamplingOfAsManyOrders) {
  for (int n = 5; n <= 8; ++n) {
    SCOPED_TRACE(n);
    const std::vector<double> lattice = RandomGame(n, 17 * n);
    const std::vector<double> exact = ShapleyValues(lattice).value();
    constexpr int kDraws = 300;
    double rings = 0, plain = 0;
    for (int draw = 0; draw < kDraws; ++draw) {
      const auto estimates = Estimate(lattice, n, 2, draw);
      const auto values = PlainSampling(lattice, n, 2 * 2 * n, draw);
      for (int i = 0; i < n; ++i) {
        rings += std::pow(estimates[i].value - exact[i], 2);
        plain += std::pow(values[i] - exact[i], 2);
      }
    }
    EXPECT_LT(rings, 0.9 * plain);
  }
}

TEST(ShapleySampleTest, TheStandardErrorIsThatOfTheDraws) {
  for (const int n : {5, 7}) {
    SCOPED_TRACE(n);
    const std::vector<double> lattice = RandomGame(n, 29);
    const std::vector<double> exact = ShapleyValues(lattice).value();
    constexpr int kDraws = 600, kCycles = 6;
    for (int i = 0; i < n; ++i) {
      double squared_error = 0, claimed = 0;
      for (int draw = 0; draw < kDraws; ++draw) {
        const auto estimate = Estimate(lattice, n, kCycles, draw)[i];
        squared_error += std::pow(estimate.value - exact[i], 2);
        claimed += std::pow(estimate.standard_error.value(), 2);
      }
      EXPECT_NEAR(claimed / squared_error, 1.0, 0.25);
    }
  }
}

TEST(ShapleySampleTest, RefusesWhatCannotBeDrawn) {
  for (const int players : {-1, 0, 2, 64}) {
    EXPECT_THAT(ShapleySample::Draw(players, 2, 1),
                Refused(kInvalid, "BAD_COUNTERFACTUAL"));
  }
  EXPECT_THAT(ShapleySample::Draw(5, -1, 1),
              Refused(kInvalid, "BAD_COUNTERFACTUAL"));
  EXPECT_THAT(ShapleySample::Draw(5, 1001, 1),
              Refused(kInvalid, "BAD_COUNTERFACTUAL"));
  EXPECT_TRUE(ShapleySample().Estimate([](uint64_t) { return 1.0; }).empty());
}

std::vector<SlotSetting> Row(int n) {
  std::vector<SlotSetting> slots(n);
  for (int i = 0; i < n; ++i)
    slots[i] = {absl::StrCat("r0c", i), true, false, 0.5};
  return slots;
}

CounterfactualPlan Plan(int n, const CounterfactualPlan::Options& options) {
  return CounterfactualPlan::Create(Row(n), options).value();
}

// Counts of a game whose worths are whole percents.
CounterfactualCounts Count(const CounterfactualPlan& plan,
                           const std::vector<int>& worth) {
  CounterfactualCounts counts;
  counts.samples = 100;
  counts.batches = 1;
  for (const uint64_t mask : plan.masks()) {
    counts.correct.push_back(worth[mask]);
    counts.correct_with_main.push_back(
        std::min(worth[mask], worth[plan.all_on()]));
  }
  return counts;
}

std::vector<int> PercentGame(int n, uint64_t seed) {
  std::vector<int> worth;
  for (const double x : RandomGame(n, seed)) worth.push_back(int(x));
  return worth;
}

TEST(ShapleyPlanTest, HoldsTheRingsOnlyIfAskedFor) {
  CounterfactualPlan::Options options;
  EXPECT_EQ(Plan(8, options).num_configurations(), 18);
  options.shapley_cycles = 3;
  options.shapley_seed = 5;
  const CounterfactualPlan plan = Plan(8, options);
  EXPECT_FALSE(plan.complete_lattice());
  EXPECT_EQ(plan.shapley_sample().rings().size(), 3);
  EXPECT_GT(plan.num_configurations(), 18 + 40);
  EXPECT_LE(plan.num_configurations(), 18 + 3 * 40);
  EXPECT_EQ(std::set<uint64_t>(plan.masks().begin(), plan.masks().end()).size(),
            plan.masks().size());
  EXPECT_EQ(plan.masks(), Plan(8, options).masks());
}

TEST(ShapleyPlanTest, TakesTheWholeLatticeWhereThatCostsNoMore) {
  CounterfactualPlan::Options options;
  options.shapley_cycles = 3;
  EXPECT_TRUE(Plan(5, options).complete_lattice());
  EXPECT_TRUE(Plan(6, options).complete_lattice());
  EXPECT_FALSE(Plan(7, options).complete_lattice());
  EXPECT_EQ(Plan(6, options).num_configurations(), 64);
  options.shapley_cycles = 1;
  EXPECT_FALSE(Plan(5, options).complete_lattice());
  EXPECT_EQ(Plan(5, options).num_configurations(), 12 + 10);
}

TEST(ShapleyPlanTest, TheCapKeepsSinglesAndDropsWholeRings) {
  CounterfactualPlan::Options options;
  options.shapley_cycles = 3;
  options.max_configurations = 1;
  const CounterfactualPlan bare = Plan(8, options);
  EXPECT_EQ(bare.num_configurations(), 18);
  EXPECT_EQ(bare.masks()[0], 255);
  EXPECT_EQ(bare.masks()[1], 0);
  EXPECT_TRUE(bare.shapley_sample().rings().empty());
  options.max_configurations = 60;
  EXPECT_EQ(Plan(8, options).shapley_sample().rings().size(), 1);
  EXPECT_EQ(Plan(8, options).num_configurations(), 18 + 40);
  // A lattice that does not fit is not cut off in the middle.
  options = {};
  options.max_configurations = 15;
  EXPECT_EQ(Plan(4, options).num_configurations(), 10);
  EXPECT_FALSE(Plan(4, options).complete_lattice());
  options.max_configurations = 0;
  EXPECT_THAT(CounterfactualPlan::Create(Row(4), options),
              Refused(kInvalid, "BAD_COUNTERFACTUAL"));
}

TEST(ShapleyAttributeTest, ReportsEstimatesWithTheirErrors) {
  constexpr int kSlots = 7;
  const std::vector<int> worth = PercentGame(kSlots, 23);
  CounterfactualPlan::Options options;
  options.shapley_cycles = 3;
  const CounterfactualPlan plan = Plan(kSlots, options);
  const auto result = Attribute(plan, Count(plan, worth)).value();
  EXPECT_EQ(result.shapley_orders, 3 * 14);
  const std::vector<double> lattice(worth.begin(), worth.end());
  const auto expected = plan.shapley_sample().Estimate(
      [&](uint64_t coalition) { return lattice[coalition]; });
  double sum = 0;
  for (int i = 0; i < kSlots; ++i) {
    EXPECT_DOUBLE_EQ(result.slots[i].shapley.value(), expected[i].value);
    EXPECT_DOUBLE_EQ(result.slots[i].shapley_standard_error.value(),
                     expected[i].standard_error.value());
    sum += *result.slots[i].shapley;
  }
  EXPECT_NEAR(sum, result.val_accuracy - *result.all_off_accuracy, 1e-9);
}

TEST(ShapleyAttributeTest, ALatticeIsExactAndSaysSo) {
  CounterfactualPlan::Options options;
  options.shapley_cycles = 3;
  const CounterfactualPlan plan = Plan(5, options);
  const std::vector<int> worth = PercentGame(5, 2);
  const auto result = Attribute(plan, Count(plan, worth)).value();
  const std::vector<double> exact =
      ShapleyValues({worth.begin(), worth.end()}).value();
  EXPECT_EQ(result.shapley_orders, 0);
  EXPECT_EQ(result.pairs.size(), 10);
  for (int i = 0; i < 5; ++i) {
    EXPECT_DOUBLE_EQ(result.slots[i].shapley.value(), exact[i]);
    EXPECT_EQ(result.slots[i].shapley_standard_error, 0.0);
  }
}

}  // namespace
}  // namespace esper::slot
