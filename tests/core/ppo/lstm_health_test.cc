#include "core/ppo/lstm_health.h"

#include <cmath>

#include "ATen/ops/full.h"
#include "ATen/ops/zeros.h"
#include "gtest/gtest.h"

namespace esper::ppo {
namespace {

using Names = std::vector<std::string>;

TEST(LstmHealthTest, MeasuresSizePerRowAndOverall) {
  // Two layers, two rows: one row of 3, one of 1.
  at::Tensor h = at::full({2, 2, 4}, 1.0f);
  h.select(1, 0).fill_(-3.0f);
  const LstmHealth health = MeasureLstm(h, at::full({2, 2, 4}, 0.5f));
  EXPECT_NEAR(health.h.rms, std::sqrt(5.0), 1e-12);
  EXPECT_NEAR(health.h.l2, std::sqrt(80.0), 1e-12);
  EXPECT_NEAR(health.h.row_rms_max, 3, 1e-12);
  EXPECT_NEAR(health.h.row_rms_mean, 2, 1e-12);
  EXPECT_NEAR(health.h.max, 3, 1e-12);
  EXPECT_NEAR(health.c.rms, 0.5, 1e-12);
  EXPECT_TRUE(health.healthy());
}

TEST(LstmHealthTest, OneSaturatedRowIsAnExplosion) {
  at::Tensor c = at::full({1, 3, 4}, 0.5f);
  c.select(1, 2).fill_(10.5f);
  EXPECT_EQ(MeasureLstm(at::full({1, 3, 4}, 0.5f), c).Anomalies(),
            Names({"lstm_c_explosion"}));
}

TEST(LstmHealthTest, DeadMemoryVanishes) {
  EXPECT_EQ(
      MeasureLstm(at::zeros({1, 2, 4}), at::full({1, 2, 4}, 1e-7f)).Anomalies(),
      Names({"lstm_h_vanishing", "lstm_c_vanishing"}));
}

TEST(LstmHealthTest, BrokenNumbersAreNamed) {
  at::Tensor h = at::full({1, 1, 4}, 1.0f);
  h[0][0][1].fill_(std::nan(""));
  at::Tensor c = at::full({1, 1, 4}, 1.0f);
  c[0][0][2].fill_(-HUGE_VAL);
  const LstmHealth health = MeasureLstm(h, c);
  EXPECT_TRUE(health.has_nan);
  EXPECT_TRUE(health.has_inf);
  EXPECT_FALSE(health.healthy());
  EXPECT_EQ(health.Anomalies().front(), "lstm_nan");
}

}  // namespace
}  // namespace esper::ppo
