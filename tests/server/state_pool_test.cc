#include "server/state_pool.h"

#include <cmath>
#include <cstdint>
#include <numeric>
#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace esper::server {
namespace {

std::vector<float> H(const StatePool& pool, int64_t row) {
  return std::vector<float>(pool.h(row), pool.h(row) + pool.row_size());
}
std::vector<float> C(const StatePool& pool, int64_t row) {
  return std::vector<float>(pool.c(row), pool.c(row) + pool.row_size());
}

// [L * H] numbers of their own.
std::vector<float> State(float first) {
  std::vector<float> state(16);
  std::iota(state.begin(), state.end(), first);
  return state;
}

TEST(StatePoolTest, RowsAreDistinctUntilNoneIsLeft) {
  StatePool pool(/*layers=*/2, /*hidden=*/8, /*capacity=*/3);
  std::set<int64_t> rows;
  for (int i = 0; i < 3; ++i) rows.insert(pool.Allocate().value());
  EXPECT_EQ(rows.size(), 3u);
  EXPECT_EQ(pool.Allocate(), std::nullopt);
  EXPECT_EQ(pool.available(), 0);
  pool.Free(*rows.begin());
  EXPECT_EQ(pool.available(), 1);
  EXPECT_EQ(pool.Allocate(), *rows.begin());
}

TEST(StatePoolTest, RowsAreReadAsWrittenInAnyOrder) {
  StatePool pool(2, 8, 10);
  for (int i = 0; i < 10; ++i) pool.Allocate();
  for (const int64_t row : {7, 2, 5}) {
    pool.Write(row, State(100 * row).data(), State(-100 * row).data());
  }
  for (const int64_t row : {2, 5, 7}) {
    EXPECT_EQ(H(pool, row), State(100 * row));
    EXPECT_EQ(C(pool, row), State(-100 * row));
  }
  EXPECT_EQ(H(pool, 0), std::vector<float>(16, 0));
}

TEST(StatePoolTest, AReassignedRowIsZero) {
  StatePool pool(1, 4, 1);
  const int64_t row = pool.Allocate().value();
  const std::vector<float> h(4, NAN), c(4, 3);
  pool.Write(row, h.data(), c.data());
  pool.Free(row);
  ASSERT_EQ(pool.Allocate(), row);
  EXPECT_EQ(H(pool, row), std::vector<float>(4, 0));
  EXPECT_EQ(C(pool, row), std::vector<float>(4, 0));
}

TEST(StatePoolTest, ARowIsOneBlockOfAllLayers) {
  StatePool pool(/*layers=*/2, /*hidden=*/4, /*capacity=*/3);
  for (int i = 0; i < 3; ++i) pool.Allocate();
  const std::vector<float> h = {1, 2, 3, 4, 5, 6, 7, 8};
  const std::vector<float> c = {-1, -2, -3, -4, -5, -6, -7, -8};
  pool.Write(1, h.data(), c.data());
  EXPECT_EQ(H(pool, 1), h);
  EXPECT_EQ(C(pool, 1), c);
  EXPECT_EQ(pool.c(1), pool.h(1) + 8);
  EXPECT_EQ(H(pool, 2), std::vector<float>(8, 0)) << "its neighbour is zero";
}

}  // namespace
}  // namespace esper::server
