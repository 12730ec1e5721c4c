#include "server/state_pool.h"

#include <set>
#include <vector>

#include "ATen/ops/equal.h"
#include "ATen/ops/full.h"
#include "ATen/ops/rand.h"
#include "ATen/ops/tensor.h"
#include "ATen/ops/zeros.h"
#include "c10/core/InferenceMode.h"
#include "gtest/gtest.h"

namespace esper::server {
namespace {

at::Tensor Rows(const std::vector<int64_t>& rows) {
  return at::tensor(rows, at::kLong);
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

TEST(StatePoolTest, ScatteredRowsAreGatheredInAnyOrder) {
  StatePool pool(2, 8, 10);
  for (int i = 0; i < 10; ++i) pool.Allocate();
  const at::Tensor h = at::rand({2, 3, 8});
  const at::Tensor c = at::rand({2, 3, 8});
  pool.Scatter(Rows({7, 2, 5}), h, c);
  const auto [gathered_h, gathered_c] = pool.Gather(Rows({2, 5, 7, 0}));
  EXPECT_TRUE(at::equal(gathered_h.select(1, 0), h.select(1, 1)));
  EXPECT_TRUE(at::equal(gathered_h.select(1, 2), h.select(1, 0)));
  EXPECT_TRUE(at::equal(gathered_c.select(1, 1), c.select(1, 2)));
  EXPECT_TRUE(at::equal(gathered_h.select(1, 3), at::zeros({2, 8})));
}

TEST(StatePoolTest, AReassignedRowIsZero) {
  StatePool pool(1, 4, 1);
  const int64_t row = pool.Allocate().value();
  pool.Scatter(Rows({row}), at::full({1, 1, 4}, NAN), at::full({1, 1, 4}, 3.0));
  pool.Free(row);
  ASSERT_EQ(pool.Allocate(), row);
  const auto [h, c] = pool.Gather(Rows({row}));
  EXPECT_TRUE(at::equal(h, at::zeros({1, 1, 4})));
  EXPECT_TRUE(at::equal(c, at::zeros({1, 1, 4})));
}

TEST(StatePoolTest, ARowIsOneBlockOfAllLayers) {
  StatePool pool(/*layers=*/2, /*hidden=*/4, /*capacity=*/3);
  for (int i = 0; i < 3; ++i) pool.Allocate();
  const std::vector<float> h = {1, 2, 3, 4, 5, 6, 7, 8};
  const std::vector<float> c = {-1, -2, -3, -4, -5, -6, -7, -8};
  pool.Write(1, h.data(), c.data());
  EXPECT_EQ(std::vector<float>(pool.h(1), pool.h(1) + 8), h);
  EXPECT_EQ(std::vector<float>(pool.c(1), pool.c(1) + 8), c);
  const auto [gathered_h, gathered_c] = pool.Gather(Rows({1, 2}));
  EXPECT_EQ(gathered_h[0][0][3].item<float>(), 4);
  EXPECT_EQ(gathered_h[1][0][0].item<float>(), 5);
  EXPECT_EQ(gathered_c[1][0][3].item<float>(), -8);
  EXPECT_EQ(gathered_c[1][1][3].item<float>(), 0) << "its neighbour is zero";
}

TEST(StatePoolTest, TakesWhatInferenceModeMade) {
  StatePool pool(1, 4, 2);
  const int64_t row = pool.Allocate().value();
  {
    c10::InferenceMode inference;
    pool.Scatter(Rows({row}), at::full({1, 1, 4}, 1.0),
                 at::full({1, 1, 4}, 2.0));
    pool.Allocate();
  }
  const auto [h, c] = pool.Gather(Rows({row}));
  EXPECT_TRUE(at::equal(c, at::full({1, 1, 4}, 2.0)));
  EXPECT_FALSE(h.requires_grad());
}

}  // namespace
}  // namespace esper::server
