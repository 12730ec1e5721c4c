#include "core/slot/gradient_monitor.h"

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace esper::slot {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

// A parameter of n elements whose gradient is `value` everywhere.
at::Tensor Parameter(int64_t n, double value,
                     at::ScalarType dtype = at::kFloat) {
  at::Tensor p = at::zeros({n}, dtype).set_requires_grad(true);
  p.mutable_grad() = at::full({n}, value, dtype);
  return p;
}

GradientReading Read(const std::vector<at::Tensor>& seed,
                     const std::vector<at::Tensor>& host) {
  GradientMonitor monitor;
  monitor.Capture(SampleGradients(seed), SampleGradients(host));
  return monitor.Finalize().value();
}

TEST(GradientRatioTest, IsTheRatioOfIntensities) {
  EXPECT_NEAR(*GradientRatio(1, 100, 2, 10000), 4.9999975, 1e-7);
  EXPECT_EQ(*GradientRatio(1, 1, 1e-6, 1), kMaxGradientRatio);
  EXPECT_EQ(*GradientRatio(0.9e-8, 10, 1, 10), 0);
  EXPECT_EQ(*GradientRatio(1, 10, 0.9e-8, 10), 0);
  EXPECT_EQ(*GradientRatio(1, 0, 1, 10), 0);
  EXPECT_EQ(*GradientRatio(1, 10, 1, 0), 0);
  for (const double bad : {kNan, kInf}) {
    EXPECT_EQ(GradientRatio(bad, 10, 1, 10), std::nullopt);
    EXPECT_EQ(GradientRatio(1, 10, bad, 10), std::nullopt);
  }
}

TEST(GradientMonitorTest, MeasuresNormsOverTensors) {
  const GradientReading reading =
      Read({Parameter(9, 1.0), Parameter(16, 1.0)}, {Parameter(100, 0.2)});
  EXPECT_TRUE(reading.measured());
  EXPECT_DOUBLE_EQ(*reading.seed_norm, 5.0);
  EXPECT_DOUBLE_EQ(*reading.health, 1.0);
  EXPECT_FALSE(*reading.has_vanishing);
  EXPECT_FALSE(*reading.has_exploding);
  EXPECT_NEAR(*reading.ratio, 5.0, 1e-5);  // Intensity 1 against 0.2.
}

TEST(GradientMonitorTest, SquaresInDoublePrecision) {
  // 1e-30 squared vanishes in float32, and 1e30 squared overflows.
  EXPECT_NEAR(*Read({Parameter(4, 1e-30)}, {Parameter(1, 1)}).seed_norm, 2e-30,
              1e-36);
  const GradientReading large = Read({Parameter(4, 1e30)}, {Parameter(1, 1)});
  EXPECT_NEAR(*large.seed_norm / 2e30, 1, 1e-6);
  EXPECT_TRUE(*large.has_exploding);
}

TEST(GradientMonitorTest, CountsTrainableElementsAndSkipsFrozenTensors) {
  at::Tensor frozen = Parameter(1000, 50);
  frozen.set_requires_grad(false);
  at::Tensor without = at::zeros({7}).set_requires_grad(true);
  const GradientSample sample =
      SampleGradients({Parameter(9, 1), frozen, without});
  EXPECT_EQ(sample.elements, 16);
  EXPECT_EQ(sample.norms.numel(), 1);
  EXPECT_EQ(sample.norms.scalar_type(), at::kDouble);
  EXPECT_FALSE(sample.norms.requires_grad());
}

TEST(GradientMonitorTest, NoGradientIsUnmeasuredNotHealthy) {
  const at::Tensor without = at::zeros({7}).set_requires_grad(true);
  const GradientReading reading = Read({without}, {Parameter(4, 1)});
  EXPECT_TRUE(reading.sampled);
  EXPECT_FALSE(reading.measured());
  EXPECT_EQ(reading.ratio, std::nullopt);
  EXPECT_EQ(reading.seed_norm, std::nullopt);
  EXPECT_EQ(reading.has_exploding, std::nullopt);
}

TEST(GradientMonitorTest, NonFiniteGradientsExplodeWithoutARatio) {
  for (const double bad : {kNan, kInf}) {
    const GradientReading reading =
        Read({Parameter(3, 1), Parameter(3, bad)}, {Parameter(3, 1)});
    EXPECT_TRUE(reading.measured());
    EXPECT_EQ(*reading.health, 0);
    EXPECT_TRUE(*reading.has_exploding);
    EXPECT_EQ(reading.ratio, std::nullopt);
    EXPECT_EQ(reading.seed_norm, std::nullopt);
  }
  // A host that diverged says nothing against the seed.
  const GradientReading host = Read({Parameter(3, 1)}, {Parameter(3, kNan)});
  EXPECT_EQ(host.ratio, std::nullopt);
  EXPECT_FALSE(*host.has_exploding);
  EXPECT_EQ(*host.health, 1);
}

TEST(GradientMonitorTest, HealthFallsWithSharesOfBadTensors) {
  EXPECT_DOUBLE_EQ(*HealthOf({1, 0}).health, 0.75);
  EXPECT_TRUE(*HealthOf({1, 0}).has_vanishing);
  EXPECT_DOUBLE_EQ(*HealthOf({1, 11, 1, 1}).health, 0.8);
  EXPECT_DOUBLE_EQ(*HealthOf({10}).health, 1.0);
  EXPECT_DOUBLE_EQ(*HealthOf({1e-7}).health, 1.0);
  EXPECT_DOUBLE_EQ(*HealthOf({0.9e-7}).health, 0.5);
  EXPECT_NEAR(*HealthOf({11}).health, 0.2, 1e-12);
}

TEST(GradientMonitorTest, KeepsTheLastSampleAndReadsItOnce) {
  GradientMonitor monitor;
  EXPECT_FALSE(monitor.pending());
  EXPECT_EQ(monitor.Finalize(), std::nullopt);
  const GradientSample host = SampleGradients({Parameter(4, 1)});
  monitor.Capture(SampleGradients({Parameter(1, 3)}), host);
  monitor.Capture(SampleGradients({Parameter(1, 4)}), host);
  EXPECT_TRUE(monitor.pending());
  EXPECT_DOUBLE_EQ(*monitor.Finalize()->seed_norm, 4);
  EXPECT_EQ(monitor.Finalize(), std::nullopt);
}

TEST(GradientMonitorTest, CarriesTheOutputsFinitenessAlong) {
  GradientMonitor monitor;
  monitor.CaptureOutput(at::full({}, false, at::kBool));
  const auto alone = monitor.Finalize();
  ASSERT_TRUE(alone);
  EXPECT_FALSE(alone->sampled);
  EXPECT_EQ(alone->output_finite, false);
  monitor.CaptureOutput(at::full({}, true, at::kBool));
  monitor.Capture(SampleGradients({Parameter(1, 3)}),
                  SampleGradients({Parameter(1, 6)}));
  const auto both = monitor.Finalize();
  EXPECT_EQ(both->output_finite, true);
  EXPECT_NEAR(*both->ratio, 0.5, 1e-6);
}

TEST(GradientDriftTest, MeasuresAgainstTheOldAverages) {
  GradientDrift drift;
  EXPECT_EQ(drift.average_health(), 1);
  const auto first = drift.Update(2, 0.8);
  EXPECT_EQ(first->norm, 0);
  EXPECT_FALSE(first->alarm);
  const auto second = drift.Update(3, 0.8);
  EXPECT_NEAR(second->norm, 0.5, 1e-8);
  EXPECT_NEAR(second->health, 0, 1e-12);
  EXPECT_FALSE(second->alarm);
  EXPECT_DOUBLE_EQ(drift.average_norm(), 0.99 * 2 + 0.01 * 3);
  EXPECT_TRUE(drift.Update(4, 0.8)->alarm);
  EXPECT_EQ(drift.update_count(), 3);
}

TEST(GradientDriftTest, RefusesWhatIsNotFinite) {
  GradientDrift drift;
  EXPECT_EQ(drift.Update(kNan, 1), std::nullopt);
  EXPECT_EQ(drift.Update(1, kInf), std::nullopt);
  EXPECT_EQ(drift.update_count(), 0);
}

}  // namespace
}  // namespace esper::slot
