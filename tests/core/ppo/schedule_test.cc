#include "core/ppo/schedule.h"

#include "core/ppo/diagnostics.h"
#include "gtest/gtest.h"
#include "tests/core/ppo/golden.h"

namespace esper::ppo {
namespace {

double ValueOf(const nlohmann::json& test) {
  const std::string kind = test["kind"];
  if (kind == "entropy_coef") {
    EntropySchedule schedule;
    schedule.fixed = test["fixed"];
    schedule.start = test["start"];
    schedule.end = test["end"];
    schedule.anneal_updates = test["anneal_steps"];
    schedule.minimum = test["minimum"];
    return schedule.At(test["train_steps"]);
  }
  if (kind == "value_coef") {
    ValueSchedule schedule;
    schedule.target = test["target"];
    schedule.start = test["start"];
    schedule.warmup_updates = test["warmup_steps"];
    return schedule.At(test["train_steps"]);
  }
  if (kind == "floor_penalty_factor") {
    return FloorPenaltyFactor(test["progress"]);
  }
  EXPECT_EQ(kind, "aux_coef");
  ContributionSchedule schedule;
  schedule.coefficient = test["coef"];
  schedule.warmup_updates = test["warmup"];
  return schedule.At(test["aux_training_step"]);
}

TEST(ScheduleTest, AgreesWithTheReferenceImplementation) {
  const auto golden = LoadGolden("ppo_schedules.json");
  ASSERT_FALSE(golden["schedules"].empty());
  for (const auto& test : golden["schedules"]) {
    EXPECT_TRUE(Near(ValueOf(test), Number(test["value"]), 1e-9, 1e-9))
        << test.dump() << " gives " << ValueOf(test);
  }
}

void ExpectFit(const Fit& fit, const nlohmann::json& expected) {
  EXPECT_TRUE(Near(fit.explained_variance,
                   Number(expected["explained_variance"]), 1e-3, 1e-4));
  EXPECT_TRUE(Near(fit.nrmse, Number(expected["value_nrmse"]), 1e-3, 1e-4));
  EXPECT_TRUE(Near(fit.variance, Number(expected["variance"]), 1e-3, 1e-4));
  EXPECT_EQ(fit.low, expected["low"].get<bool>());
}

TEST(DiagnosticsTest, AgreesWithTheReferenceImplementation) {
  const auto golden = LoadGolden("ppo_schedules.json");
  for (const auto& test : golden["value_diagnostics"]) {
    const auto values = Numbers<float>(test["values"]);
    const auto returns = Numbers<float>(test["returns"]);
    const auto td_errors = Numbers<float>(test["td_errors"]);
    SCOPED_TRACE(test["returns"].dump().substr(0, 60));
    const ValueMetrics m = ComputeValueMetrics(values, returns, td_errors);
    const auto& expected = test["metrics"];
    // Correlation and skewness of constant returns hang on rounding.
    const bool constant = Number(expected["return_variance"]) == 0;
    const std::vector<std::pair<const char*, double>> metrics = {
        {"td_error_mean", m.td_mean},
        {"td_error_std", m.td_deviation},
        {"bellman_error", m.bellman_error},
        {"return_p10", m.return_p10},
        {"return_p50", m.return_p50},
        {"return_p90", m.return_p90},
        {"return_variance", m.return_variance},
        {"v_return_correlation", constant ? 0.0 : m.correlation},
        {"return_skewness", constant ? 0.0 : m.return_skewness}};
    for (const auto& [name, value] : metrics) {
      if (constant && Number(expected[name]) != value &&
          (name == std::string("return_skewness") ||
           name == std::string("v_return_correlation"))) {
        continue;
      }
      EXPECT_TRUE(Near(value, Number(expected[name]), 1e-3, 1e-4))
          << name << ": " << value << " against " << expected[name];
    }
    ExpectFit(ComputeFit(values, returns, Number(test["floored"]["floor"])),
              test["floored"]);
    ExpectFit(ComputeFit(values, returns,
                         RelativeVarianceFloor(returns,
                                               Number(test["aux"]["fraction"]),
                                               Number(test["aux"]["minimum"]))),
              test["aux"]);
  }
}

}  // namespace
}  // namespace esper::ppo
