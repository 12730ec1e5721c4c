#include "core/slot/counterfactual.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::slot {
namespace {

using ::esper::testing::IsOk;
using ::esper::testing::Refused;
using ::esper::testing::StatusIs;
using ::testing::ElementsAre;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

SlotSetting Blending(const std::string& slot, double alpha) {
  return {slot, /*active=*/true, /*fossilized=*/false, alpha};
}

SlotSetting Fossil(const std::string& slot) {
  return {slot, /*active=*/true, /*fossilized=*/true, /*alpha=*/1.0};
}

std::vector<SlotSetting> Row(int n) {
  std::vector<SlotSetting> slots;
  for (int i = 0; i < n; ++i) {
    slots.push_back(Blending(absl::StrCat("r0c", i), 0.5));
  }
  return slots;
}

CounterfactualPlan Plan(const std::vector<SlotSetting>& slots,
                        const CounterfactualPlan::Options& options = {}) {
  return CounterfactualPlan::Create(slots, options).value();
}

// Counts of samples that `right(mask, sample)` gets right.
template <typename Right>
CounterfactualCounts Count(const CounterfactualPlan& plan, int64_t samples,
                           Right right) {
  CounterfactualCounts counts;
  counts.samples = samples;
  counts.batches = 1;
  for (const uint64_t mask : plan.masks()) {
    int64_t correct = 0, both = 0;
    for (int64_t s = 0; s < samples; ++s) {
      correct += right(mask, s);
      both += right(mask, s) && right(plan.all_on(), s);
    }
    counts.correct.push_back(correct);
    counts.correct_with_main.push_back(both);
  }
  return counts;
}

TEST(CounterfactualPlanTest, HoldsEverySubsetOnceUpToFourSlots) {
  for (int n = 0; n <= 4; ++n) {
    const CounterfactualPlan plan = Plan(Row(n));
    EXPECT_EQ(plan.num_slots(), n);
    EXPECT_EQ(plan.num_configurations(), 1 << n);
    EXPECT_TRUE(plan.complete_lattice());
    const std::set<uint64_t> distinct(plan.masks().begin(), plan.masks().end());
    EXPECT_EQ(distinct.size(), size_t{1} << n);
    EXPECT_EQ(plan.masks()[0], (uint64_t{1} << n) - 1);
  }
}

TEST(CounterfactualPlanTest, HoldsSinglesAndExtremesBeyondFourSlots) {
  const CounterfactualPlan plan = Plan(Row(6));
  EXPECT_EQ(plan.num_configurations(), 2 * 6 + 2);
  EXPECT_FALSE(plan.complete_lattice());
  EXPECT_TRUE(plan.Find(0).has_value());
  for (int i = 0; i < 6; ++i) {
    EXPECT_TRUE(plan.Find(uint64_t{1} << i).has_value());
    EXPECT_TRUE(plan.Find(63 & ~(uint64_t{1} << i)).has_value());
  }
  EXPECT_FALSE(plan.Find(3).has_value());
}

TEST(CounterfactualPlanTest, OnlyBlendedActiveSlotsAreEligible) {
  std::vector<SlotSetting> slots = {
      Blending("r0c0", 0.0),
      Blending("r0c1", 0.3),
      Fossil("r0c2"),
      {"r1c0", /*active=*/false, /*fossilized=*/false, 0.9}};
  EXPECT_EQ(Plan(slots).num_slots(), 1);
  EXPECT_EQ(Plan(slots).slots()[0].slot, "r0c1");

  CounterfactualPlan::Options options;
  options.include_fossilized = true;
  const CounterfactualPlan with_fossils = Plan(slots, options);
  ASSERT_EQ(with_fossils.num_slots(), 2);
  EXPECT_EQ(with_fossils.slots()[1].slot, "r0c2");
  EXPECT_EQ(with_fossils.committed(), 2u);
}

TEST(CounterfactualPlanTest, CommittedSetIsPlannedBeyondFourSlots) {
  std::vector<SlotSetting> slots = Row(4);
  slots.push_back(Fossil("r1c0"));
  slots.push_back(Fossil("r1c1"));
  CounterfactualPlan::Options options;
  options.include_fossilized = true;
  const CounterfactualPlan plan = Plan(slots, options);
  EXPECT_EQ(plan.committed(), 0b110000u);
  EXPECT_TRUE(plan.Find(plan.committed()).has_value());
  EXPECT_EQ(plan.num_configurations(), 2 * 6 + 2 + 1);
}

TEST(CounterfactualPlanTest, SlotsAreOrderedByNumber) {
  const CounterfactualPlan plan = Plan(
      {Blending("r1c0", 1.0), Blending("r0c10", 0.1), Blending("r0c9", 0.2)});
  EXPECT_EQ(plan.slots()[0].slot, "r0c9");
  EXPECT_EQ(plan.slots()[1].slot, "r0c10");
  EXPECT_EQ(plan.slots()[2].slot, "r1c0");
}

TEST(CounterfactualPlanTest, SlotsStayAtTheirCurrentAlpha) {
  const CounterfactualPlan plan =
      Plan({Blending("r0c0", 0.25), Blending("r0c1", 0.75)});
  for (int k = 0; k < plan.num_configurations(); ++k) {
    EXPECT_EQ(plan.Alpha(k, 0), plan.masks()[k] & 1 ? 0.25 : 0.0);
    EXPECT_EQ(plan.Alpha(k, 1), plan.masks()[k] & 2 ? 0.75 : 0.0);
  }
}

TEST(CounterfactualPlanTest, RefusesBadSettings) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double alpha : {nan, -0.1, 1.1}) {
    EXPECT_THAT(CounterfactualPlan::Create({Blending("r0c0", alpha)}),
                Refused(kInvalid, "BAD_COUNTERFACTUAL"));
  }
  EXPECT_THAT(
      CounterfactualPlan::Create({Blending("r0c0", 1), Blending("r0c0", 1)}),
      Refused(kInvalid, "BAD_COUNTERFACTUAL"));
  EXPECT_THAT(CounterfactualPlan::Create({Blending("early", 1)}),
              Refused(kInvalid, "BAD_SLOT_ID"));
  CounterfactualPlan::Options options;
  options.lattice_limit = 13;
  EXPECT_THAT(CounterfactualPlan::Create(Row(1), options),
              Refused(kInvalid, "BAD_COUNTERFACTUAL"));
}

// Samples are got right by the slots that are on: of 100 samples, the empty
// network knows 0..39, slot 0 adds 40..59, slot 1 adds 50..79, and both
// together add 90..94.
bool TwoSlots(uint64_t mask, int64_t s) {
  if (s < 40) return true;
  if ((mask & 1) && s >= 40 && s < 60) return true;
  if ((mask & 2) && s >= 50 && s < 80) return true;
  return mask == 3 && s >= 90 && s < 95;
}

TEST(AttributeTest, ContributionIsTheDropWithoutTheSlot) {
  const CounterfactualPlan plan =
      Plan({Blending("r0c0", 0.25), Blending("r0c1", 0.75)});
  CounterfactualCounts counts = Count(plan, 100, TwoSlots);
  counts.loss_sum = 3.0;
  counts.batches = 4;
  const CounterfactualResult result = Attribute(plan, counts).value();
  EXPECT_DOUBLE_EQ(result.val_loss, 0.75);
  EXPECT_DOUBLE_EQ(result.val_accuracy, 85.0);
  EXPECT_DOUBLE_EQ(result.all_off_accuracy.value(), 40.0);
  EXPECT_DOUBLE_EQ(result.committed_accuracy, 40.0);
  const SlotAttribution& first = *result.Find("r0c0");
  const SlotAttribution& second = *result.Find("r0c1");
  EXPECT_DOUBLE_EQ(first.baseline, 70.0);
  EXPECT_DOUBLE_EQ(first.contribution, 15.0);
  EXPECT_DOUBLE_EQ(second.baseline, 60.0);
  EXPECT_DOUBLE_EQ(second.contribution, 25.0);
  // f(01) - f(0) - f(1) + f() = 85 - 60 - 70 + 40.
  ASSERT_EQ(result.pairs.size(), 1u);
  EXPECT_DOUBLE_EQ(result.pairs[0].value, -5.0);
  EXPECT_DOUBLE_EQ(first.interaction_sum, -5.0);
  EXPECT_DOUBLE_EQ(first.boost_received, 0.0);
  EXPECT_DOUBLE_EQ(first.shapley.value(), (20.0 + 15.0) / 2);
  EXPECT_DOUBLE_EQ(second.shapley.value(), (30.0 + 25.0) / 2);
  EXPECT_DOUBLE_EQ(first.upstream_alpha_sum, 0.0);
  EXPECT_DOUBLE_EQ(first.downstream_alpha_sum, 0.75);
  EXPECT_DOUBLE_EQ(second.upstream_alpha_sum, 0.25);
  EXPECT_DOUBLE_EQ(second.downstream_alpha_sum, 0.0);
  EXPECT_EQ(result.Find("r0c2"), nullptr);
}

TEST(AttributeTest, PositivePairsBoostBothSlots) {
  const CounterfactualPlan plan = Plan(Row(3));
  // Slots 0 and 2 are worth 10 samples together and nothing alone.
  const CounterfactualResult result =
      Attribute(plan, Count(plan, 50,
                            [](uint64_t mask, int64_t s) {
                              return (mask & 5) == 5 && s < 10;
                            }))
          .value();
  ASSERT_EQ(result.pairs.size(), 3u);
  for (const PairInteraction& pair : result.pairs) {
    const bool synergy = pair.first == 0 && pair.second == 2;
    EXPECT_DOUBLE_EQ(pair.value, synergy ? 20.0 : 0.0);
  }
  EXPECT_DOUBLE_EQ(result.slots[0].boost_received, 20.0);
  EXPECT_DOUBLE_EQ(result.slots[1].boost_received, 0.0);
  EXPECT_DOUBLE_EQ(result.slots[2].interaction_sum, 20.0);
}

TEST(AttributeTest, WhatWasNotMeasuredIsAbsent) {
  const CounterfactualPlan none = Plan({Blending("r0c0", 0.0)});
  const CounterfactualResult empty =
      Attribute(none,
                Count(none, 10, [](uint64_t, int64_t s) { return s < 7; }))
          .value();
  EXPECT_DOUBLE_EQ(empty.val_accuracy, 70.0);
  EXPECT_DOUBLE_EQ(empty.committed_accuracy, 70.0);
  EXPECT_FALSE(empty.all_off_accuracy.has_value());
  EXPECT_TRUE(empty.slots.empty());

  const CounterfactualPlan five = Plan(Row(5));
  const CounterfactualResult result =
      Attribute(five, Count(five, 10,
                            [](uint64_t mask, int64_t s) {
                              return s < __builtin_popcountll(mask);
                            }))
          .value();
  EXPECT_TRUE(result.pairs.empty());
  EXPECT_DOUBLE_EQ(result.all_off_accuracy.value(), 0.0);
  for (const SlotAttribution& slot : result.slots) {
    EXPECT_FALSE(slot.shapley.has_value());
    EXPECT_DOUBLE_EQ(slot.contribution, 10.0);
  }
}

TEST(AttributeTest, OneSlotHasAllOffFromItsOwnBaseline) {
  const CounterfactualPlan plan = Plan(Row(1));
  const CounterfactualResult result =
      Attribute(plan, Count(plan, 10,
                            [](uint64_t mask, int64_t s) {
                              return s < (mask ? 8 : 5);
                            }))
          .value();
  EXPECT_DOUBLE_EQ(result.all_off_accuracy.value(), 50.0);
  EXPECT_DOUBLE_EQ(result.slots[0].contribution, 30.0);
  EXPECT_DOUBLE_EQ(result.slots[0].shapley.value(), 30.0);
}

TEST(AttributeTest, CommittedKeepsFossilisedSlotsOn) {
  CounterfactualPlan::Options options;
  options.include_fossilized = true;
  const CounterfactualPlan plan =
      Plan({Fossil("r0c0"), Blending("r0c1", 0.5)}, options);
  const CounterfactualResult result =
      Attribute(plan, Count(plan, 100, TwoSlots)).value();
  EXPECT_DOUBLE_EQ(result.committed_accuracy, 60.0);
  EXPECT_DOUBLE_EQ(result.all_off_accuracy.value(), 40.0);
}

TEST(AttributeTest, StandardErrorIsThatOfThePairedDifferences) {
  // Against a direct computation over random outcomes.
  std::mt19937 random(20240711);
  for (int trial = 0; trial < 20; ++trial) {
    const int n = 5 + trial * 13;
    std::vector<int> a(n), b(n);
    int64_t correct_a = 0, correct_b = 0, both = 0;
    for (int i = 0; i < n; ++i) {
      a[i] = random() % 10 < 7;
      b[i] = random() % 10 < 4;
      correct_a += a[i];
      correct_b += b[i];
      both += a[i] && b[i];
    }
    const double mean = static_cast<double>(correct_a - correct_b) / n;
    double squares = 0;
    for (int i = 0; i < n; ++i) squares += std::pow(a[i] - b[i] - mean, 2);
    const double expected = 100 * std::sqrt(squares / (n - 1) / n);
    EXPECT_NEAR(PairedStandardError(n, correct_a, correct_b, both), expected,
                1e-9);
  }
  EXPECT_EQ(PairedStandardError(1, 1, 0, 0), 0.0);
  EXPECT_EQ(PairedStandardError(100, 60, 60, 60), 0.0);
}

TEST(AttributeTest, RefusesCountsOfAnotherPlan) {
  const CounterfactualPlan plan = Plan(Row(2));
  const CounterfactualCounts good = Count(plan, 100, TwoSlots);
  EXPECT_THAT(Attribute(plan, good), IsOk());
  EXPECT_THAT(Attribute(Plan(Row(3)), good),
              Refused(kInvalid, "BAD_COUNTERFACTUAL"));
  CounterfactualCounts empty = good;
  empty.samples = 0;
  EXPECT_THAT(Attribute(plan, empty), StatusIs(kInvalid));
  CounterfactualCounts excess = good;
  excess.correct[1] = 101;
  EXPECT_THAT(Attribute(plan, excess), StatusIs(kInvalid));
  CounterfactualCounts impossible = good;
  impossible.correct_with_main[2] = impossible.correct[2] + 1;
  EXPECT_THAT(Attribute(plan, impossible), StatusIs(kInvalid));
}

TEST(ShapleyValuesTest, AdditiveGameGivesEachPlayerItsWorth) {
  const std::vector<double> worth = {3.0, -1.5, 0.25};
  std::vector<double> lattice(8, 10.0);
  for (int mask = 0; mask < 8; ++mask) {
    for (int i = 0; i < 3; ++i) {
      if (mask >> i & 1) lattice[mask] += worth[i];
    }
  }
  const std::vector<double> values = ShapleyValues(lattice).value();
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(values[i], worth[i], 1e-12);
}

TEST(ShapleyValuesTest, PureSynergyIsSharedEqually) {
  std::vector<double> lattice(16, 0.0);
  lattice[15] = 12.0;
  EXPECT_THAT(ShapleyValues(lattice).value(), ElementsAre(3, 3, 3, 3));
}

TEST(ShapleyValuesTest, ValuesOfRandomGamesAreEfficientSymmetricAndNull) {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> uniform(-50, 50);
  for (int n = 1; n <= 6; ++n) {
    // Player 0 is worth nothing to anyone; players n - 2 and n - 1 (for n > 2)
    // are interchangeable.
    std::vector<double> lattice(size_t{1} << n);
    for (size_t mask = 0; mask < lattice.size(); ++mask) {
      size_t twin = mask & ~size_t{1};
      if (n > 2) {
        const size_t low = size_t{1} << (n - 2), high = low << 1;
        if ((twin & high) && !(twin & low)) twin = (twin & ~high) | low;
      }
      lattice[mask] = twin == mask ? uniform(random) : lattice[twin];
    }
    const std::vector<double> values = ShapleyValues(lattice).value();
    const double sum = std::accumulate(values.begin(), values.end(), 0.0);
    EXPECT_NEAR(sum, lattice.back() - lattice.front(), 1e-9);
    EXPECT_NEAR(values[0], 0.0, 1e-9);
    if (n > 2) {
      EXPECT_NEAR(values[n - 2], values[n - 1], 1e-9);
    }
  }
}

TEST(ShapleyValuesTest, EqualsTheMeanOverAllOrders) {
  std::mt19937 random(11);
  std::uniform_real_distribution<double> uniform(0, 100);
  std::vector<double> lattice(16);
  for (double& worth : lattice) worth = uniform(random);
  std::vector<int> order = {0, 1, 2, 3};
  std::vector<double> expected(4, 0.0);
  do {
    size_t coalition = 0;
    for (const int i : order) {
      const size_t joined = coalition | size_t{1} << i;
      expected[i] += (lattice[joined] - lattice[coalition]) / 24;
      coalition = joined;
    }
  } while (std::next_permutation(order.begin(), order.end()));
  const std::vector<double> values = ShapleyValues(lattice).value();
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(values[i], expected[i], 1e-9);
}

TEST(ShapleyValuesTest, RefusesWhatIsNoGame) {
  EXPECT_THAT(ShapleyValues({}), StatusIs(kInvalid));
  EXPECT_THAT(ShapleyValues({1, 2, 3}), StatusIs(kInvalid));
  EXPECT_THAT(ShapleyValues({1, std::nan("")}), StatusIs(kInvalid));
}

}  // namespace
}  // namespace esper::slot
