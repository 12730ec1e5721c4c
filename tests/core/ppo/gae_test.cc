#include "core/ppo/gae.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "core/error.h"
#include "core/ppo/normalizer.h"
#include "gtest/gtest.h"
#include "tests/core/ppo/golden.h"

namespace esper::ppo {
namespace {

struct Row {
  std::vector<float> rewards, values, bootstraps;
  std::vector<StepEnd> ends;
  GaeRow view() const { return {rewards, values, bootstraps, ends}; }
};

Row RowOf(const nlohmann::json& env) {
  Row row;
  row.rewards = Numbers<float>(env["rewards"]);
  row.values = Numbers<float>(env["values"]);
  row.bootstraps = Numbers<float>(env["bootstrap_values"]);
  const auto done = Numbers<int>(env["dones"]);
  const auto truncated = Numbers<int>(env["truncated"]);
  for (size_t t = 0; t < done.size(); ++t) {
    row.ends.push_back(truncated[t] ? StepEnd::kTruncated
                       : done[t]    ? StepEnd::kTerminated
                                    : StepEnd::kNone);
  }
  return row;
}

void ExpectNear(const std::vector<float>& actual, const nlohmann::json& json,
                double relative, double absolute, const std::string& what) {
  const auto expected = Numbers<double>(json);
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (size_t t = 0; t < actual.size(); ++t) {
    EXPECT_TRUE(Near(actual[t], expected[t], relative, absolute))
        << what << " step " << t << ": " << actual[t] << " against "
        << expected[t];
  }
}

double ScaleOf(const nlohmann::json& normalizer) {
  if (normalizer.is_null()) return 1.0;
  ValueNormalizer value({});
  Moments moments = Moments::Initial(1, Number(normalizer["count"]));
  moments.mean[0] = Number(normalizer["mean"]);
  moments.variance[0] = Number(normalizer["var"]);
  EXPECT_TRUE(value.Restore(moments).ok());
  return value.sigma();
}

// Runs one case; `expected` holds advantages and returns per environment.
void RunCase(const nlohmann::json& test, const nlohmann::json& expected,
             EndHandling ends) {
  SCOPED_TRACE(test["name"].get<std::string>());
  GaeOptions options;
  options.gamma = test["gamma"];
  options.lambda = test["gae_lambda"];
  options.value_unit = ScaleOf(test["value_normalizer"]);
  options.ends = ends;
  EXPECT_TRUE(Near(options.value_unit, test["scale"], 1e-6, 1e-6));
  double largest = 1;
  for (const auto& env : expected["envs"]) {
    for (double value : Numbers<double>(env["returns"])) {
      largest = std::max(largest, std::fabs(value));
    }
  }
  AdvantageMoments moments;
  std::vector<GaeResult> results;
  for (size_t e = 0; e < test["envs"].size(); ++e) {
    nlohmann::json env = test["envs"][e];
    const auto& penalty = test["penalty"];
    if (!penalty.is_null() && penalty["env"] == e) {
      env["rewards"] = penalty["rewards_after"];
      env["dones"] = penalty["dones_after"];
      env["truncated"] = penalty["truncated_after"];
    }
    const Row row = RowOf(env);
    results.push_back(ComputeGae(row.view(), options));
    for (float a : results.back().advantages) moments.Add(a);
  }
  for (size_t e = 0; e < results.size(); ++e) {
    const auto& env = expected["envs"][e];
    ExpectNear(results[e].advantages, env["advantages"], 1e-5, 2e-6 * largest,
               "advantages");
    ExpectNear(results[e].returns, env["returns"], 1e-5, 2e-6 * largest,
               "returns");
    if (!env.contains("td_errors")) continue;
    ExpectNear(results[e].td_errors, env["td_errors"], 1e-5, 2e-6 * largest,
               "td_errors");
    std::vector<float> normalized;
    for (float a : results[e].advantages) {
      normalized.push_back(static_cast<float>(moments.Normalize(a)));
    }
    ExpectNear(normalized, env["normalized_advantages"], 1e-5, 2e-5,
               "normalized");
  }
  if (!expected.contains("pre_norm_std")) return;
  EXPECT_TRUE(Near(moments.mean(), Number(expected["pre_norm_mean"]), 1e-5,
                   2e-6 * largest));
  EXPECT_TRUE(Near(moments.deviation(), Number(expected["pre_norm_std"]), 1e-5,
                   2e-6 * largest));
  EXPECT_EQ(moments.floored(), expected["std_floored"].get<bool>());
}

TEST(GaeTest, AgreesWithTheReferenceImplementation) {
  const auto golden = LoadGolden("gae.json");
  ASSERT_FALSE(golden["cases"].empty());
  for (const auto& test : golden["cases"]) {
    RunCase(test, test["expected"], EndHandling::kUpstream);
  }
}

TEST(GaeTest, CutsAtEveryTruncationWhereTheReferenceWalksThrough) {
  int deviations = 0;
  const auto golden = LoadGolden("gae.json");
  for (const auto& test : golden["cases"]) {
    if (test["deviation"].is_null()) {
      RunCase(test, test["expected"], EndHandling::kEveryEnd);
    } else {
      ++deviations;
      RunCase(test, test["deviation"], EndHandling::kEveryEnd);
    }
  }
  EXPECT_GT(deviations, 0);
}

// The definition: A_t is the sum of (gamma lambda)^l delta_{t+l} up to the end
// of the episode that t lies in.
double BruteForce(const Row& row, const GaeOptions& options, size_t t) {
  double sum = 0, weight = 1;
  for (size_t i = t; i < row.rewards.size(); ++i) {
    StepEnd end = row.ends[i];
    if (i + 1 == row.rewards.size() && end == StepEnd::kNone) {
      end = StepEnd::kTerminated;
    }
    double next = 0;
    if (end == StepEnd::kNone) next = row.values[i + 1];
    if (end == StepEnd::kTruncated) next = row.bootstraps[i];
    sum +=
        weight * (row.rewards[i] +
                  options.value_unit * (options.gamma * next - row.values[i]));
    if (end != StepEnd::kNone) break;
    weight *= options.gamma * options.lambda;
  }
  return sum;
}

TEST(GaeTest, EqualsTheDefinitionOnRandomRows) {
  std::mt19937 random(20240601);
  std::normal_distribution<float> normal;
  for (int trial = 0; trial < 300; ++trial) {
    Row row;
    const size_t n = random() % 40;
    for (size_t t = 0; t < n; ++t) {
      row.rewards.push_back(normal(random));
      row.values.push_back(normal(random));
      row.bootstraps.push_back(normal(random));
      const int kind = random() % 8;
      row.ends.push_back(kind == 0   ? StepEnd::kTerminated
                         : kind == 1 ? StepEnd::kTruncated
                                     : StepEnd::kNone);
    }
    GaeOptions options;
    options.gamma = 0.9 + 0.1 * (random() % 100) / 100.0;
    options.lambda = (random() % 100) / 99.0;
    options.value_unit = 0.5 + random() % 3;
    const GaeResult result = ComputeGae(row.view(), options);
    for (size_t t = 0; t < n; ++t) {
      const double expected = BruteForce(row, options, t);
      EXPECT_NEAR(result.advantages[t], expected,
                  1e-5 * (1 + std::fabs(expected)))
          << "trial " << trial << " step " << t;
    }
  }
}

TEST(GaeTest, RefusesSpansOfDifferentLengths) {
  const std::vector<float> two(2), three(3);
  const std::vector<StepEnd> ends(3);
  EXPECT_THROW(ComputeGae({three, two, three, ends}, {}), ShapeError);
}

TEST(AdvantageMomentsTest, PartsMergeIntoTheWhole) {
  std::mt19937 random(7);
  std::normal_distribution<double> normal(3.0, 2.0);
  AdvantageMoments whole, left, right, empty;
  for (int i = 0; i < 100; ++i) {
    const double x = normal(random);
    whole.Add(x);
    (i % 3 == 0 ? left : right).Add(x);
  }
  left.Merge(right);
  left.Merge(empty);
  EXPECT_DOUBLE_EQ(left.count(), whole.count());
  EXPECT_NEAR(left.mean(), whole.mean(), 1e-12);
  EXPECT_NEAR(left.deviation(), whole.deviation(), 1e-12);
}

}  // namespace
}  // namespace esper::ppo
