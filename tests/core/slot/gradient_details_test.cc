#include "core/slot/gradient_details.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace esper::slot {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// A parameter whose gradient is `gradient`.
at::Tensor With(const at::Tensor& gradient) {
  at::Tensor parameter = at::full(gradient.sizes(), 1.0, gradient.options());
  parameter.set_requires_grad(true);
  parameter.mutable_grad() = gradient;
  return parameter;
}

at::Tensor Row(const std::vector<double>& values) {
  return at::tensor(values, at::kDouble);
}

TEST(GradientDetailsTest, DescribesNormsAndZeros) {
  at::Tensor without = at::full({7}, 1.0).set_requires_grad(true);
  const auto details =
      InspectGradients({With(Row({3, 4, 0})), without, With(Row({0.5}))});
  ASSERT_TRUE(details.has_value());
  EXPECT_DOUBLE_EQ(details->min_norm, 0.5);
  EXPECT_DOUBLE_EQ(details->max_norm, 5);
  EXPECT_DOUBLE_EQ(details->norm_ratio, 10);
  EXPECT_DOUBLE_EQ(details->zero_fraction, 0.25);
  EXPECT_TRUE(details->healthy);
}

TEST(GradientDetailsTest, NothingMeasuredIsAbsent) {
  EXPECT_FALSE(InspectGradients({}).has_value());
  EXPECT_FALSE(InspectGradients({at::full({3}, 1.0)}).has_value());
}

TEST(GradientDetailsTest, CountsWhatIsNotFinite) {
  const auto details = InspectGradients(
      {With(Row({std::nan(""), 1, kInf})), With(Row({-kInf, 2}))});
  ASSERT_TRUE(details.has_value());
  EXPECT_EQ(details->nan_count, 1);
  EXPECT_EQ(details->inf_count, 2);
  EXPECT_EQ(details->max_norm, kInf);
  EXPECT_EQ(details->norm_ratio, kInf);
  EXPECT_FALSE(details->healthy);
}

TEST(GradientDetailsTest, HealthEndsAtItsThresholds) {
  const auto healthy = [](const std::vector<std::vector<double>>& rows) {
    std::vector<at::Tensor> parameters;
    for (const auto& row : rows) parameters.push_back(With(Row(row)));
    return InspectGradients(parameters)->healthy;
  };
  EXPECT_TRUE(healthy({{10}}));
  EXPECT_FALSE(healthy({{10.01}}));        // Exploding.
  EXPECT_TRUE(healthy({{9.99}, {0.01}}));  // Ratio 999.
  EXPECT_FALSE(healthy({{10}, {0.01}}));   // Ratio 1000.
  EXPECT_TRUE(healthy({{1, 1, 0}}));
  EXPECT_FALSE(healthy({{1, 0}}));  // Half of it zero.
  EXPECT_FALSE(healthy({{0}}));
}

TEST(GradientDetailsTest, SquaresInDoublePrecision) {
  const auto details =
      InspectGradients({With(at::full({4}, 1e-30, at::kFloat))});
  EXPECT_NEAR(details->min_norm / 2e-30, 1, 1e-6);
}

}  // namespace
}  // namespace esper::slot
