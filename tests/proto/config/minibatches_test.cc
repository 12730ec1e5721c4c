#include "proto/config/minibatches.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

namespace esper::config {
namespace {

using ::testing::ElementsAre;

TEST(SplitRowsTest, EveryRowIsInOnePartAndSizesAreEven) {
  for (int rows = 1; rows <= 20; ++rows) {
    for (int parts = 1; parts <= rows; ++parts) {
      const auto split = SplitRows(rows, parts, {7, 3, 1});
      ASSERT_EQ(split.size(), parts);
      std::vector<int> all;
      for (const std::vector<int>& part : split) {
        EXPECT_GE(part.size(), rows / parts);
        EXPECT_LE(part.size(), rows / parts + 1);
        EXPECT_TRUE(std::is_sorted(part.begin(), part.end()));
        all.insert(all.end(), part.begin(), part.end());
      }
      std::sort(all.begin(), all.end());
      for (int i = 0; i < rows; ++i) EXPECT_EQ(all[i], i);
      EXPECT_EQ(all.size(), rows);
    }
  }
}

TEST(SplitRowsTest, DependsOnItsKeyAlone) {
  const PassKey key = {1, 2, 3};
  const auto split = SplitRows(30, 3, key);
  EXPECT_EQ(SplitRows(30, 3, key), split);
  EXPECT_NE(SplitRows(30, 3, {2, 2, 3}), split);
  EXPECT_NE(SplitRows(30, 3, {1, 3, 3}), split);
  EXPECT_NE(SplitRows(30, 3, {1, 2, 4}), split);
}

TEST(SplitRowsTest, MakesNoEmptyParts) {
  EXPECT_THAT(SplitRows(2, 5, {}), ::testing::SizeIs(2));
  EXPECT_THAT(SplitRows(3, 1, {}), ElementsAre(ElementsAre(0, 1, 2)));
}

// Each of the six pairs of four rows should be a part about as often: 2000
// passes give 667 of each of the three splits, with a deviation of 21.
TEST(SplitRowsTest, IsUniform) {
  std::map<std::vector<int>, int> count;
  for (uint64_t pass = 0; pass < 2000; ++pass) {
    for (const auto& part : SplitRows(4, 2, {5, 9, pass})) ++count[part];
  }
  EXPECT_EQ(count.size(), 6);
  for (const auto& [part, times] : count) EXPECT_NEAR(times, 667, 110);
}

}  // namespace
}  // namespace esper::config
