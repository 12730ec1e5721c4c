#include <cmath>
#include <limits>
#include <vector>

#include "core/stats/mean_interval.h"
#include "core/stats/paired_comparison.h"
#include "core/stats/student_t.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::stats {
namespace {

using ::esper::testing::StatusIs;
using Verdict = PairedComparison::Verdict;

// Additional hours of sleep with two drugs, ten patients (Student, The probable
// error of a mean, Biometrika 1908).
const std::vector<double> kDrug1 = {0.7, -1.6, -0.2, -1.2, -0.1,
                                    3.4, 3.7,  0.8,  0.0,  2.0};
const std::vector<double> kDrug2 = {1.9, 0.8, 1.1, 0.1, -0.1,
                                    4.4, 5.5, 1.6, 4.6, 3.4};

TEST(StudentTTest, AgreesWithClosedFormsAndTables) {
  // One degree is Cauchy's distribution, two have a closed form.
  for (const double t : {-30.0, -1.0, -0.01, 0.0, 0.5, 3.0, 700.0}) {
    EXPECT_NEAR(StudentTCdf(t, 1), 0.5 + std::atan(t) / M_PI, 1e-12) << t;
    EXPECT_NEAR(StudentTCdf(t, 2), 0.5 + t / (2 * std::sqrt(2 + t * t)), 1e-12)
        << t;
  }
  EXPECT_NEAR(StudentTQuantile(0.975, 1), 12.7062047364, 1e-8);
  EXPECT_NEAR(StudentTQuantile(0.975, 4), 2.7764451052, 1e-9);
  EXPECT_NEAR(StudentTQuantile(0.025, 9), -2.2621571628, 1e-9);
  EXPECT_NEAR(StudentTQuantile(0.995, 29), 2.7563859037, 1e-9);
  // With many degrees it is the normal distribution.
  EXPECT_NEAR(StudentTQuantile(0.975, 1e7), 1.9599639845, 1e-6);
}

TEST(StudentTTest, QuantileInvertsTheDistribution) {
  for (const double degrees : {1.0, 4.0, 31.5, 400.0}) {
    for (const double p : {1e-6, 0.01, 0.3, 0.5, 0.9, 0.9999}) {
      EXPECT_NEAR(StudentTCdf(StudentTQuantile(p, degrees), degrees), p, 1e-11)
          << p << " with " << degrees;
    }
  }
}

TEST(MeanIntervalTest, ReachesAsFarAsTheSamplesSay) {
  const MeanInterval five = MeanWithInterval({1, 2, 3, 4, 5});
  EXPECT_EQ(five.count, 5);
  EXPECT_DOUBLE_EQ(five.mean, 3);
  EXPECT_NEAR(five.deviation, std::sqrt(2.5), 1e-12);
  EXPECT_NEAR(five.high - five.mean, 2.7764451052 * std::sqrt(0.5), 1e-8);
  EXPECT_DOUBLE_EQ(five.low + five.high, 6);
  EXPECT_LT(MeanWithInterval({1, 2, 3, 4, 5}, 0.5).high, five.high);
  EXPECT_TRUE(std::isinf(MeanWithInterval({7}).high));
  EXPECT_EQ(MeanWithInterval({}).count, 0);
}

TEST(PairedComparisonTest, FindsWhatStudentFound) {
  const auto found = PairedComparison::Create(kDrug1, kDrug2);
  ASSERT_OK(found);
  EXPECT_NEAR(found->difference().mean, 1.58, 1e-12);
  EXPECT_NEAR(found->t_statistic(), 4.0621, 1e-4);
  EXPECT_NEAR(found->p_value(), 0.002833, 1e-6);
  EXPECT_NEAR(found->difference().low, 0.7001142, 1e-6);
  EXPECT_NEAR(found->difference().high, 2.4598858, 1e-6);
  EXPECT_EQ(found->verdict(), Verdict::kSecondHigher);
  // Each by itself, the intervals overlap: it is the pairs that decide.
  EXPECT_GT(found->first().high, found->second().low);
  EXPECT_EQ(PairedComparison::Create(kDrug2, kDrug1)->verdict(),
            Verdict::kFirstHigher);
  EXPECT_EQ(PairedComparison::Create(kDrug1, kDrug2, 0.999)->verdict(),
            Verdict::kInconclusive);
}

TEST(PairedComparisonTest, KnowsEqualAndConstantlyDifferentGroups) {
  const auto equal = PairedComparison::Create(kDrug1, kDrug1);
  EXPECT_EQ(equal->verdict(), Verdict::kInconclusive);
  EXPECT_EQ(equal->p_value(), 1);
  const auto shifted =
      PairedComparison::Create({0, 1, 2, 3, 4}, {2, 3, 4, 5, 6});
  EXPECT_EQ(shifted->p_value(), 0);
  EXPECT_EQ(shifted->verdict(), Verdict::kSecondHigher);
}

TEST(PairedComparisonTest, RefusesWhatCannotBeCompared) {
  const auto code = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(PairedComparison::Create({1, 2, 3, 4}, {1, 2, 3, 4}),
              StatusIs(code));
  EXPECT_THAT(PairedComparison::Create(kDrug1, {1, 2, 3, 4, 5}),
              StatusIs(code));
  EXPECT_THAT(PairedComparison::Create(kDrug1, kDrug2, 1), StatusIs(code));
  std::vector<double> broken = kDrug2;
  broken[3] = std::numeric_limits<double>::quiet_NaN();
  const auto refused = PairedComparison::Create(kDrug1, broken);
  EXPECT_THAT(refused, StatusIs(code));
  EXPECT_THAT(std::string(refused.status().message()),
              ::testing::HasSubstr("pair 3"));
}

}  // namespace
}  // namespace esper::stats
