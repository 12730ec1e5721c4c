#include "core/ppo/normalizer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "ATen/ops/tensor.h"
#include "core/error.h"
#include "gtest/gtest.h"
#include "tests/core/ppo/golden.h"
#include "tests/testing/status_matchers.h"

namespace esper::ppo {
namespace {

using ::esper::testing::Refused;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
const float kNan = std::numeric_limits<float>::quiet_NaN();

at::Tensor Matrix(const nlohmann::json& rows) {
  const auto numbers = Numbers<float>(rows);
  return at::tensor(numbers).reshape({static_cast<int64_t>(rows.size()), -1});
}

void ExpectRows(const at::Tensor& actual, const nlohmann::json& expected,
                double relative, double absolute, const std::string& what) {
  const auto numbers = Numbers<double>(expected);
  const at::Tensor flat = actual.flatten();
  ASSERT_EQ(flat.numel(), static_cast<int64_t>(numbers.size())) << what;
  for (size_t i = 0; i < numbers.size(); ++i) {
    const double value = flat[i].item<double>();
    EXPECT_TRUE(Near(value, numbers[i], relative, absolute))
        << what << " " << i << ": " << value << " against " << numbers[i];
  }
}

double Largest(const nlohmann::json& steps, const char* key) {
  double largest = 0;
  for (const auto& step : steps) {
    for (double x : Numbers<double>(step[key])) {
      largest = std::max(largest, std::fabs(x));
    }
  }
  return largest;
}

TEST(ObservationNormalizerTest, AgreesWithTheReferenceImplementation) {
  const auto golden = LoadGolden("normalizers.json");
  for (const auto& test : golden["observation"]) {
    SCOPED_TRACE(test["name"].get<std::string>());
    ObservationNormalizer::Options options;
    options.averaging = test["momentum"].is_null()
                            ? Averaging::Exact()
                            : Averaging::Momentum(test["momentum"]);
    options.initial_count = 1e-4;
    options.epsilon = test["epsilon"];
    options.clip = test["clip"];
    ObservationNormalizer normalizer(test["dim"], options);
    const double largest = Largest(test["steps"], "batch");
    const double absolute = 1e-6 * (1 + largest) * (1 + largest);
    const double output = largest > 1e4 ? 1e-3 : 1e-4;
    for (const auto& step : test["steps"]) {
      const at::Tensor batch = Matrix(step["batch"]);
      const at::Tensor head = batch.slice(0, 0, 3);
      ExpectRows(normalizer.Scaler().Apply(head),
                 step["normalized_before_update"], 2e-5, output, "before");
      ASSERT_OK(normalizer.Update(batch));
      const Moments& moments = normalizer.moments();
      ExpectRows(at::tensor(moments.mean, at::kDouble), step["mean"], 2e-5,
                 absolute, "mean");
      ExpectRows(at::tensor(moments.variance, at::kDouble), step["var"], 2e-5,
                 absolute, "var");
      EXPECT_TRUE(Near(moments.count, step["count"], 2e-5, 1e-6));
      ExpectRows(normalizer.Scaler().Apply(head),
                 step["normalized_after_update"], 2e-5, output, "after");
      const at::Tensor probe =
          at::tensor(std::vector<float>(batch.size(1), 1e9f)).unsqueeze(0);
      ExpectRows(normalizer.Scaler().Apply(probe), step["probe"], 2e-5, output,
                 "probe");
      const ObservationScaler narrow(moments, options.epsilon, 2.0);
      ExpectRows(narrow.Apply(batch.slice(0, 0, 1)), step["probe_clip_2"], 2e-5,
                 output, "probe_clip_2");
    }
  }
}

at::Tensor RandomRows(int64_t rows, int64_t width, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(5.0f, 3.0f);
  std::vector<float> values(rows * width);
  for (float& value : values) value = normal(random);
  return at::tensor(values).reshape({rows, width});
}

TEST(ObservationNormalizerTest, DoesNotDependOnHowRowsAreSplit) {
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

TEST(ObservationNormalizerTest, ForgetsSlowlyOnceTheExactRowsAreFull) {
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

TEST(RewardNormalizerTest, AgreesWithTheReferenceImplementation) {
  const auto golden = LoadGolden("normalizers.json");
  for (const auto& test : golden["reward"]) {
    SCOPED_TRACE(test["name"].get<std::string>());
    RewardNormalizer normalizer(test["clip"], test["epsilon"]);
    for (const auto& step : test["steps"]) {
      const double reward = Number(step["reward"]);
      if (!std::isfinite(reward)) {
        // Refused by us, where the reference is poisoned for ever.
        ASSERT_FALSE(test["deviation"].is_null());
        const auto before = normalizer.state();
        EXPECT_THAT(normalizer.Normalize(reward),
                    Refused(kInvalid, "NONFINITE_INPUT"));
        EXPECT_EQ(normalizer.state().count, before.count);
        EXPECT_EQ(normalizer.state().m2, before.m2);
        break;
      }
      EXPECT_TRUE(Near(*normalizer.NormalizeOnly(reward),
                       Number(step["normalize_only_before"]), 1e-9, 1e-9));
      EXPECT_TRUE(Near(*normalizer.Normalize(reward),
                       Number(step["normalized"]), 1e-9, 1e-9));
      EXPECT_TRUE(
          Near(normalizer.state().mean, Number(step["mean"]), 1e-9, 1e-9));
      EXPECT_TRUE(Near(normalizer.state().m2, Number(step["m2"]), 1e-9, 1e-9));
      EXPECT_EQ(normalizer.state().count, step["count"].get<int64_t>());
    }
  }
}

TEST(ValueNormalizerTest, AgreesWithTheReferenceImplementation) {
  const auto golden = LoadGolden("normalizers.json");
  for (const auto& test : golden["value"]) {
    SCOPED_TRACE(test["name"].get<std::string>());
    ValueNormalizer::Options options;
    options.min_samples = test["min_samples"];
    options.epsilon = test["epsilon"];
    options.averaging = test["momentum"].is_null()
                            ? Averaging::Exact()
                            : Averaging::ExactThenMomentum(test["min_samples"],
                                                           test["momentum"]);
    ValueNormalizer normalizer(options);
    const double largest = Largest(test["steps"], "returns");
    const double absolute = 1e-6 * (1 + largest) * (1 + largest);
    for (const auto& step : test["steps"]) {
      ASSERT_OK(normalizer.Update(Numbers<float>(step["returns"])));
      const Moments& moments = normalizer.moments();
      EXPECT_TRUE(Near(moments.mean[0], Number(step["mean"]), 2e-5, absolute));
      EXPECT_TRUE(
          Near(moments.variance[0], Number(step["var"]), 2e-5, absolute));
      EXPECT_EQ(moments.count, Number(step["count"]));
      EXPECT_EQ(normalizer.has_valid_statistics(),
                step["has_valid_stats"].get<bool>());
      EXPECT_TRUE(Near(normalizer.sigma(), Number(step["scale"]), 2e-5, 1e-4));
      const auto probe = Numbers<double>(test["probe"]);
      for (size_t i = 0; i < probe.size(); ++i) {
        EXPECT_TRUE(Near(probe[i] / normalizer.sigma(),
                         Number(step["normalized"][i]), 2e-5, 1e-4));
        EXPECT_TRUE(Near(probe[i] * normalizer.sigma(),
                         Number(step["denormalized"][i]), 2e-5, 1e-4));
      }
    }
  }
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

TEST(ReturnScalerTest, DoesNotDependOnTheOrderOfEpisodes) {
  auto episodes = RandomEpisodes();
  ReturnScaler forwards({}), backwards({});
  for (const auto& e : episodes) ASSERT_OK(forwards.Update(e, 0.99));
  std::reverse(episodes.begin(), episodes.end());
  for (const auto& e : episodes) ASSERT_OK(backwards.Update(e, 0.99));
  EXPECT_NEAR(forwards.deviation(), backwards.deviation(), 1e-10);
  EXPECT_GT(forwards.deviation(), 1.0);
}

TEST(ReturnScalerTest, EqualRewardsDoNotSaturate) {
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
