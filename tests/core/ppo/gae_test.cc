#include "core/ppo/gae.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "core/error.h"
#include "gtest/gtest.h"

namespace esper::ppo {
namespace {

struct Row {
  std::vector<float> rewards, values, bootstraps;
  std::vector<StepEnd> ends;
  GaeRow view() const { return {rewards, values, bootstraps, ends}; }
};

// Three steps with a truncation in the middle.
Row CutRow() {
  return {{1, 2, 4},
          {0.5, 0.25, 1},
          {0, 8, 0},
          {StepEnd::kNone, StepEnd::kTruncated, StepEnd::kTerminated}};
}

TEST(GaeTest, T12EveryTruncationCutsAndPaysItsBootstrap) {
  GaeOptions options;
  options.gamma = 0.5;
  options.lambda = 0.5;
  const GaeResult ours = ComputeGae(CutRow().view(), options);
  // 4 - 1;  2 + 0.5 * 8 - 0.25;  1 + 0.5 * 0.25 - 0.5 + 0.25 * 5.75.
  EXPECT_FLOAT_EQ(ours.advantages[2], 3.0f);
  EXPECT_FLOAT_EQ(ours.advantages[1], 5.75f);
  EXPECT_FLOAT_EQ(ours.advantages[0], 2.0625f);
  // The reference walks on into the step behind.
  options.ends = EndHandling::kUpstream;
  const GaeResult upstream = ComputeGae(CutRow().view(), options);
  EXPECT_FLOAT_EQ(upstream.advantages[1], 2 + 0.5 * 1 - 0.25 + 0.25 * 3.0);
}

TEST(GaeTest, TerminatedIsWorthNothingAndTruncatedItsBootstrap) {
  Row row = {{1}, {0.5}, {10}, {StepEnd::kTerminated}};
  GaeOptions options;
  options.gamma = 0.9;
  options.value_unit = 2;
  EXPECT_FLOAT_EQ(ComputeGae(row.view(), options).advantages[0], 0.0f);
  row.ends[0] = StepEnd::kTruncated;
  EXPECT_FLOAT_EQ(ComputeGae(row.view(), options).advantages[0], 18.0f);
  EXPECT_FLOAT_EQ(ComputeGae(row.view(), options).returns[0], 19.0f);
}

// The definition: A_t is the sum of (gamma lambda)^l delta_{t+l} up to the end
// of the episode that t lies in.
double BruteForce(const Row& row, const GaeOptions& options, size_t t) {
  double sum = 0, weight = 1;
  for (size_t i = t; i < row.rewards.size(); ++i) {
    StepEnd end = row.ends[i];
    if (i + 1 == row.rewards.size() && end == StepEnd::kNone) {
      end = StepEnd::kTerminated;
    }
    double next = 0;
    if (end == StepEnd::kNone) next = row.values[i + 1];
    if (end == StepEnd::kTruncated) next = row.bootstraps[i];
    sum +=
        weight * (row.rewards[i] +
                  options.value_unit * (options.gamma * next - row.values[i]));
    if (end != StepEnd::kNone) break;
    weight *= options.gamma * options.lambda;
  }
  return sum;
}

TEST(GaeTest, EqualsTheDefinitionOnRandomRows) {
  std::mt19937 random(20240601);
  std::normal_distribution<float> normal;
  for (int trial = 0; trial < 300; ++trial) {
    Row row;
    const size_t n = random() % 40;
    for (size_t t = 0; t < n; ++t) {
      row.rewards.push_back(normal(random));
      row.values.push_back(normal(random));
      row.bootstraps.push_back(normal(random));
      const int kind = random() % 8;
      row.ends.push_back(kind == 0   ? StepEnd::kTerminated
                         : kind == 1 ? StepEnd::kTruncated
                                     : StepEnd::kNone);
    }
    GaeOptions options;
    options.gamma = 0.9 + 0.1 * (random() % 100) / 100.0;
    options.lambda = (random() % 100) / 99.0;
    options.value_unit = 0.5 + random() % 3;
    const GaeResult result = ComputeGae(row.view(), options);
    for (size_t t = 0; t < n; ++t) {
      const double expected = BruteForce(row, options, t);
      EXPECT_NEAR(result.advantages[t], expected,
                  1e-5 * (1 + std::fabs(expected)))
          << "trial " << trial << " step " << t;
    }
  }
}

TEST(GaeTest, RefusesSpansOfDifferentLengths) {
  const std::vector<float> two(2), three(3);
  const std::vector<StepEnd> ends(3);
  EXPECT_THROW(ComputeGae({three, two, three, ends}, {}), ShapeError);
}

TEST(AdvantageMomentsTest, PartsMergeIntoTheWhole) {
  std::mt19937 random(7);
  std::normal_distribution<double> normal(3.0, 2.0);
  AdvantageMoments whole, left, right, empty;
  for (int i = 0; i < 100; ++i) {
    const double x = normal(random);
    whole.Add(x);
    (i % 3 == 0 ? left : right).Add(x);
  }
  left.Merge(right);
  left.Merge(empty);
  EXPECT_DOUBLE_EQ(left.count(), whole.count());
  EXPECT_NEAR(left.mean(), whole.mean(), 1e-12);
  EXPECT_NEAR(left.deviation(), whole.deviation(), 1e-12);
}

}  // namespace
}  // namespace esper::ppo
