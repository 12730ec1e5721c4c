#include "core/ppo/anomaly.h"

#include <cmath>

#include "gtest/gtest.h"

namespace esper::ppo {
namespace {

using Names = std::vector<std::string>;
const double kNan = std::nan("");

TEST(AnomalyTest, NothingIsWrongWithOrdinaryNumbers) {
  AnomalyInputs inputs;
  inputs.entropy = 0.6;
  inputs.kl = 0.01;
  EXPECT_EQ(DetectAnomalies(inputs), Names());
}

TEST(AnomalyTest, EachLimitHasItsName) {
  AnomalyInputs inputs;
  inputs.ratio_max = 5.1;
  inputs.ratio_min = 0.09;
  inputs.nonfinite_metric = true;
  inputs.value_loss = 5.1;
  inputs.entropy = 0.09;
  inputs.kl = 0.51;
  EXPECT_EQ(DetectAnomalies(inputs),
            Names({"ratio_explosion", "ratio_collapse", "numerical_instability",
                   "value_collapse", "entropy_collapse", "kl_extreme"}));
  inputs.entropy = 0.29;
  inputs.kl = 0.11;
  inputs.ratio_max = kNan;
  EXPECT_EQ(DetectAnomalies(inputs),
            Names({"ratio_nan_inf", "numerical_instability", "value_collapse",
                   "entropy_low", "kl_spike"}));
}

TEST(AnomalyTest, LimitsThemselvesAreFine) {
  AnomalyInputs inputs;
  inputs.ratio_max = 5.0;
  inputs.ratio_min = 0.1;
  inputs.value_loss = 5.0;
  inputs.bellman_error = 5.0;
  inputs.entropy = 0.3;
  inputs.kl = 0.1;
  EXPECT_EQ(DetectAnomalies(inputs), Names());
}

TEST(AnomalyTest, ValuesOnlyCollapseWhereThePolicyHadAChoice) {
  AnomalyInputs inputs;
  inputs.bellman_error = 6;
  EXPECT_EQ(DetectAnomalies(inputs), Names({"value_collapse"}));
  inputs.any_unforced = false;
  EXPECT_EQ(DetectAnomalies(inputs), Names());
}

TEST(AnomalyTest, AGradientOfAnOddNormIsUnhealthy) {
  EXPECT_EQ(GradientHealth(1.0), 1.0);
  EXPECT_EQ(GradientHealth(100.0), 1.0);
  EXPECT_EQ(GradientHealth(100.1), 0.3);
  EXPECT_EQ(GradientHealth(1e-8), 0.3);
  EXPECT_EQ(GradientHealth(kNan), 0.3);
}

TEST(HeadCollapseMonitorTest, AHeadCollapsesAfterThreeUpdatesInARow) {
  HeadCollapseMonitor monitor({{"op", 0.08}});
  EXPECT_EQ(monitor.Update("op", 0.05), std::nullopt);
  EXPECT_EQ(monitor.Update("op", 0.05), std::nullopt);
  EXPECT_EQ(monitor.Update("op", 0.05), "entropy_collapse_op");
  // Neither under the limit nor recovered: the streak stays.
  EXPECT_EQ(monitor.Update("op", 0.10), std::nullopt);
  EXPECT_EQ(monitor.streak("op"), 3);
  EXPECT_EQ(monitor.Update("op", kNan), "entropy_nan_inf_op");
  EXPECT_EQ(monitor.streak("op"), 3);
  EXPECT_EQ(monitor.Update("op", 0.07), "entropy_collapse_op");
  EXPECT_EQ(monitor.Update("op", 0.13), std::nullopt);
  EXPECT_EQ(monitor.streak("op"), 0);
}

TEST(HeadCollapseMonitorTest, HeadsAreWatchedApart) {
  HeadCollapseMonitor monitor;
  for (int i = 0; i < 3; ++i) monitor.Update("slot", 0.09);
  EXPECT_EQ(monitor.streak("slot"), 3);
  EXPECT_EQ(monitor.streak("op"), 0);
  // 0.09 is above the limit of op, and of a head without one of its own.
  EXPECT_EQ(monitor.Update("op", 0.09), std::nullopt);
  EXPECT_EQ(monitor.streak("op"), 0);
  monitor.Update("arm", 0.04);
  EXPECT_EQ(monitor.streak("arm"), 1);
}

}  // namespace
}  // namespace esper::ppo
