#include "core/ppo/minibatch_plan.h"

#include <algorithm>
#include <set>

#include "core/error.h"
#include "gtest/gtest.h"

namespace esper::ppo {
namespace {

TEST(MinibatchPlanTest, T5EveryRowIsInExactlyOneMinibatch) {
  for (const auto& [rows, minibatches] : std::vector<std::pair<int, int>>{
           {1, 1}, {7, 1}, {7, 3}, {7, 7}, {64, 4}, {65, 4}}) {
    const MinibatchPlan plan(rows, minibatches, 5);
    for (int64_t pass = 0; pass < 3; ++pass) {
      std::set<int64_t> seen;
      size_t smallest = rows, largest = 0;
      for (int64_t m = 0; m < minibatches; ++m) {
        const std::vector<int64_t> part = plan.Rows(pass, m);
        EXPECT_TRUE(std::is_sorted(part.begin(), part.end()));
        for (int64_t row : part) {
          EXPECT_TRUE(seen.insert(row).second) << row;
          EXPECT_GE(row, 0);
          EXPECT_LT(row, rows);
        }
        smallest = std::min(smallest, part.size());
        largest = std::max(largest, part.size());
      }
      EXPECT_EQ(seen.size(), static_cast<size_t>(rows));
      EXPECT_LE(largest - smallest, 1u);
    }
  }
}

TEST(MinibatchPlanTest, T5TheOrderIsAFunctionOfSeedAndPass) {
  const MinibatchPlan plan(32, 4, 17), same(32, 4, 17), other(32, 4, 18);
  EXPECT_EQ(plan.Rows(2, 1), same.Rows(2, 1));
  EXPECT_NE(plan.Rows(2, 1), plan.Rows(3, 1));
  EXPECT_NE(plan.Rows(2, 1), other.Rows(2, 1));
}

TEST(MinibatchPlanTest, T5RowsMeetAllOthersInTime) {
  // Uniform shuffling: over many passes each pair shares a minibatch about as
  // often as any other, a third of the time less itself.
  const MinibatchPlan plan(9, 3, 1);
  int together = 0;
  constexpr int kPasses = 3000;
  for (int pass = 0; pass < kPasses; ++pass) {
    for (int m = 0; m < 3; ++m) {
      const auto rows = plan.Rows(pass, m);
      together += std::count(rows.begin(), rows.end(), 0) &&
                  std::count(rows.begin(), rows.end(), 8);
    }
  }
  // 2 / 8, with a standard error of 0.008.
  EXPECT_NEAR(together / double{kPasses}, 0.25, 0.035);
}

TEST(UpdateShapeTest, RefusesWhatCannotWorkNamingTheField) {
  const auto field = [](const UpdateShape& shape, double value_clip = 0) {
    try {
      shape.Check(/*rows=*/4, value_clip);
    } catch (const InvalidArgumentError& error) {
      EXPECT_EQ(error.reason(), "MALFORMED_REQUEST");
      return error.detail().field;
    }
    return std::string();
  };
  EXPECT_EQ(field({0, 1, 0}), "passes");
  EXPECT_EQ(field({1, 0, 0}), "minibatches");
  EXPECT_EQ(field({1, 5, 0}), "minibatches");
  EXPECT_EQ(field({2, 1, 0}, 0.2), "value_clip");
  EXPECT_EQ(field({1, 1, 0}, 0.2), "");
  EXPECT_EQ(field({4, 4, 0}), "");
  EXPECT_EQ(field(UpdateShape::Upstream()), "");
}

}  // namespace
}  // namespace esper::ppo
