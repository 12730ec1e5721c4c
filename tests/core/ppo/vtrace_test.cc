#include "core/ppo/vtrace.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "core/error.h"
#include "gtest/gtest.h"

namespace esper::ppo {
namespace {

struct Row {
  std::vector<float> log_ratios, rewards, values, bootstraps;
  std::vector<StepEnd> ends;

  VtraceRow view() const {
    return {log_ratios, rewards, values, bootstraps, ends};
  }
};

// Episodes of 1 to 7 steps, ended either way, now and then cut inside.
Row RandomRow(uint64_t seed, double spread) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  Row row;
  for (int episode = 0; episode < 5; ++episode) {
    const int steps = 1 + static_cast<int>(random() % 7);
    for (int t = 0; t < steps; ++t) {
      row.log_ratios.push_back(static_cast<float>(spread) * normal(random));
      row.rewards.push_back(normal(random));
      row.values.push_back(normal(random));
      row.bootstraps.push_back(normal(random));
      row.ends.push_back(StepEnd::kNone);
    }
    row.ends.back() =
        random() % 2 == 0 ? StepEnd::kTerminated : StepEnd::kTruncated;
  }
  return row;
}

// The value behind a step.
double Behind(const Row& row, size_t t) {
  if (row.ends[t] == StepEnd::kTerminated) return 0;
  if (row.ends[t] == StepEnd::kTruncated) return row.bootstraps[t];
  return row.values[t + 1];
}

// Equation 1 of the paper, term by term, for the step s.
double Target(const Row& row, size_t s, const VtraceOptions& options) {
  double target = row.values[s], discount = 1, trace = 1;
  for (size_t t = s;; ++t) {
    const double ratio = std::exp(static_cast<double>(row.log_ratios[t]));
    const double delta =
        std::min(options.rho_bar, ratio) *
        (row.rewards[t] + options.gamma * Behind(row, t) - row.values[t]);
    target += discount * trace * delta;
    if (row.ends[t] != StepEnd::kNone) return target;
    discount *= options.gamma;
    trace *= options.lambda * std::min(options.c_bar, ratio);
  }
}

TEST(VtraceTest, EqualsTheDefinitionOnRandomEpisodes) {
  std::vector<VtraceOptions> all(4);
  all[1] = {0.9, 2.0, 0.5, 1.0};
  all[2] = {1.0, 1.0, 1.0, 0.7};
  all[3] = {0.95, 1.5, 1.5, 0.0};
  for (const VtraceOptions& options : all) {
    for (uint64_t seed = 1; seed <= 50; ++seed) {
      const Row row = RandomRow(seed, 0.8);
      const VtraceResult result = ComputeVtrace(row.view(), options);
      for (size_t t = 0; t < row.rewards.size(); ++t) {
        const bool ends = row.ends[t] != StepEnd::kNone;
        const double next = ends ? Behind(row, t) : Target(row, t + 1, options);
        const double q = row.rewards[t] + options.gamma * next;
        const double ratio = std::exp(static_cast<double>(row.log_ratios[t]));
        ASSERT_NEAR(result.targets[t], Target(row, t, options), 1e-5);
        ASSERT_NEAR(result.q_targets[t], q, 1e-5);
        ASSERT_NEAR(result.advantages[t],
                    std::min(options.rho_bar, ratio) * (q - row.values[t]),
                    1e-5);
        ASSERT_NEAR(result.ratios[t], ratio, 1e-5 * ratio);
      }
    }
  }
}

TEST(VtraceTest, OnPolicyItIsTheEstimateOfGae) {
  for (const double lambda : {1.0, 0.6}) {
    Row row = RandomRow(7, 0.0);
    VtraceOptions options;
    options.lambda = lambda;
    GaeOptions gae;
    gae.gamma = options.gamma;
    gae.lambda = lambda;
    const VtraceResult result = ComputeVtrace(row.view(), options);
    const GaeResult expected =
        ComputeGae({row.rewards, row.values, row.bootstraps, row.ends}, gae);
    for (size_t t = 0; t < row.rewards.size(); ++t) {
      EXPECT_NEAR(result.targets[t], expected.returns[t], 1e-5);
      EXPECT_NEAR(result.td_errors[t], expected.td_errors[t], 1e-5);
    }
  }
}

TEST(VtraceTest, NothingOfAnEpisodeReachesTheOneBeforeIt) {
  Row row = RandomRow(3, 0.8);
  const VtraceResult before = ComputeVtrace(row.view(), {});
  size_t last = 0;
  while (row.ends[last] == StepEnd::kNone) ++last;
  for (size_t t = last + 1; t < row.rewards.size(); ++t) row.rewards[t] += 100;
  const VtraceResult after = ComputeVtrace(row.view(), {});
  for (size_t t = 0; t <= last; ++t) {
    EXPECT_EQ(before.targets[t], after.targets[t]);
    EXPECT_EQ(before.advantages[t], after.advantages[t]);
  }
  EXPECT_NE(before.targets[last + 1], after.targets[last + 1]);
}

TEST(VtraceTest, RefusesSpansOfDifferentLengths) {
  Row row = RandomRow(1, 0.8);
  row.bootstraps.pop_back();
  EXPECT_THROW(ComputeVtrace(row.view(), {}), ShapeError);
}

}  // namespace
}  // namespace esper::ppo
