#include "core/ppo/normalizer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "ATen/ops/tensor.h"
#include "core/error.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::ppo {
namespace {

using ::esper::testing::Refused;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
const float kNan = std::numeric_limits<float>::quiet_NaN();

at::Tensor RandomRows(int64_t rows, int64_t width, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(5.0f, 3.0f);
  std::vector<float> values(rows * width);
  for (float& value : values) value = normal(random);
  return at::tensor(values).reshape({rows, width});
}

TEST(ObservationNormalizerTest, T9DoesNotDependOnHowRowsAreSplit) {
  const at::Tensor rows = RandomRows(1000, 5, 11);
  ObservationNormalizer whole(5, {}), parts(5, {});
  ASSERT_OK(whole.Update(rows));
  for (int64_t start = 0, n = 1; start < 1000;
       start += n, n = n * 3 % 101 + 1) {
    ASSERT_OK(
        parts.Update(rows.slice(0, start, std::min(start + n, int64_t{1000}))));
  }
  EXPECT_DOUBLE_EQ(parts.moments().count, 1000);
  for (int j = 0; j < 5; ++j) {
    EXPECT_NEAR(parts.moments().mean[j], whole.moments().mean[j], 1e-10);
    EXPECT_NEAR(parts.moments().variance[j], whole.moments().variance[j], 1e-9);
  }
  // No trace of the initial guess is left.
  const at::Tensor column = rows.select(1, 0).to(at::kDouble);
  EXPECT_NEAR(whole.moments().mean[0], column.mean().item<double>(), 1e-9);
  EXPECT_NEAR(whole.moments().variance[0], column.var(false).item<double>(),
              1e-9);
}

TEST(ObservationNormalizerTest, T9ForgetsSlowlyOnceTheExactRowsAreFull) {
  ObservationNormalizer::Options options;
  options.averaging = Averaging::ExactThenCapped(100);
  ObservationNormalizer normalizer(1, options);
  ASSERT_OK(
      normalizer.Update(at::tensor(std::vector<float>(100, 0.f)).unsqueeze(1)));
  ASSERT_OK(
      normalizer.Update(at::tensor(std::vector<float>(100, 1.f)).unsqueeze(1)));
  EXPECT_NEAR(normalizer.moments().mean[0], 0.5, 1e-12);
  // The next hundred weigh as much as everything before them together.
  ASSERT_OK(
      normalizer.Update(at::tensor(std::vector<float>(100, 1.f)).unsqueeze(1)));
  EXPECT_NEAR(normalizer.moments().mean[0], 0.75, 1e-12);
}

TEST(ObservationNormalizerTest, RefusesBadRowsAndKeepsItsStatistics) {
  ObservationNormalizer normalizer(5, {});
  ASSERT_OK(normalizer.Update(RandomRows(20, 5, 3)));
  const Moments before = normalizer.moments();
  at::Tensor rows = RandomRows(4, 5, 4);
  rows[2][3] = kNan;
  const absl::Status status = normalizer.Update(rows);
  EXPECT_THAT(status, Refused(kInvalid, "NONFINITE_INPUT"));
  EXPECT_EQ(DetailOf(status)->row, 2);
  EXPECT_THAT(normalizer.Update(RandomRows(4, 6, 5)),
              Refused(kInvalid, "BAD_SHAPE"));
  EXPECT_EQ(normalizer.moments().mean, before.mean);
  EXPECT_EQ(normalizer.moments().variance, before.variance);
  EXPECT_EQ(normalizer.moments().count, before.count);
}

TEST(ObservationNormalizerTest, RestoresWhatItHeldAndRefusesTheRest) {
  ObservationNormalizer source(5, {}), target(5, {});
  ASSERT_OK(source.Update(RandomRows(20, 5, 3)));
  ASSERT_OK(target.Restore(source.moments()));
  const at::Tensor probe = RandomRows(3, 5, 9);
  EXPECT_TRUE(source.Scaler().Apply(probe).equal(target.Scaler().Apply(probe)));
  Moments bad = source.moments();
  bad.variance[1] = -1;
  EXPECT_FALSE(target.Restore(bad).ok());
  EXPECT_FALSE(target.Restore(Moments::Initial(4, 0)).ok());
  EXPECT_EQ(target.moments().variance, source.moments().variance);
}

TEST(RewardNormalizerTest, T8RefusesWhatWouldPoisonItForEver) {
  RewardNormalizer normalizer(/*clip=*/10.0, /*epsilon=*/1e-8);
  ASSERT_OK(normalizer.Normalize(0.5));
  ASSERT_OK(normalizer.Normalize(1.0));
  const double before = *normalizer.NormalizeOnly(0.2);
  for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    EXPECT_THAT(normalizer.Normalize(bad),
                Refused(kInvalid, "NONFINITE_INPUT"));
  }
  EXPECT_EQ(normalizer.state().count, 2);
  EXPECT_EQ(*normalizer.NormalizeOnly(0.2), before);
}

TEST(ValueNormalizerTest, RefusesNonFiniteReturns) {
  ValueNormalizer normalizer({});
  ASSERT_OK(normalizer.Update(std::vector<float>{1, 2, 3}));
  EXPECT_THAT(normalizer.Update(std::vector<float>{1, kNan}),
              Refused(kInvalid, "NONFINITE_INPUT"));
  EXPECT_EQ(normalizer.moments().count, 3);
  EXPECT_EQ(normalizer.moments().mean[0], 2);
}

std::vector<std::vector<float>> RandomEpisodes() {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(1.0f, 2.0f);
  std::vector<std::vector<float>> episodes(12);
  for (size_t e = 0; e < episodes.size(); ++e) {
    for (size_t t = 0; t < 10 + e; ++t) episodes[e].push_back(normal(random));
  }
  return episodes;
}

TEST(ReturnScalerTest, T8DoesNotDependOnTheOrderOfEpisodes) {
  auto episodes = RandomEpisodes();
  ReturnScaler forwards({}), backwards({});
  for (const auto& e : episodes) ASSERT_OK(forwards.Update(e, 0.99));
  std::reverse(episodes.begin(), episodes.end());
  for (const auto& e : episodes) ASSERT_OK(backwards.Update(e, 0.99));
  EXPECT_NEAR(forwards.deviation(), backwards.deviation(), 1e-10);
  EXPECT_GT(forwards.deviation(), 1.0);
}

TEST(ReturnScalerTest, T8EqualRewardsDoNotSaturate) {
  // Two equal first rewards made the reference implementation divide by 1e-8.
  ReturnScaler scaler({});
  ASSERT_OK(scaler.Update(std::vector<float>{0.25f}, 0.995));
  ASSERT_OK(scaler.Update(std::vector<float>{0.25f}, 0.995));
  EXPECT_DOUBLE_EQ(scaler.deviation(), 1e-2);
}

TEST(ReturnScalerTest, RefusesNonFiniteRewardsNamingTheStep) {
  ReturnScaler scaler({});
  ASSERT_OK(scaler.Update(std::vector<float>{1, 2, 3}, 0.9));
  const double before = scaler.deviation();
  const absl::Status status =
      scaler.Update(std::vector<float>{1, kNan, 2}, 0.9);
  EXPECT_THAT(status, Refused(kInvalid, "NONFINITE_INPUT"));
  EXPECT_EQ(DetailOf(status)->step, 1);
  EXPECT_EQ(scaler.deviation(), before);
}

}  // namespace
}  // namespace esper::ppo
