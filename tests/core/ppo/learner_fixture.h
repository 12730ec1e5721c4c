#ifndef ESPER_TESTS_CORE_PPO_LEARNER_FIXTURE_H_
#define ESPER_TESTS_CORE_PPO_LEARNER_FIXTURE_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "ATen/Parallel.h"
#include "core/ppo/learner.h"
#include "gtest/gtest.h"
#include "tests/core/ppo/rollout.h"

namespace esper::ppo {

inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

inline LearnerConfig TestConfig() {
  LearnerConfig config;
  config.predictor_dropout = false;
  config.learning_rate = 1e-3;
  return config;
}

inline std::unique_ptr<Learner> MakeLearner(
    const LearnerConfig& config = TestConfig(), uint64_t seed = 3) {
  at::set_num_threads(1);
  auto learner = Learner::Create(SmallSpec(), config, seed);
  EXPECT_TRUE(learner.ok()) << learner.status();
  return *std::move(learner);
}

// Episodes acted by the learner's published version.
inline std::vector<Trajectory> Episodes(const Learner& learner,
                                        std::vector<int64_t> lengths = {6, 9, 4,
                                                                        9},
                                        uint64_t seed = 1) {
  RolloutOptions options;
  options.lengths = std::move(lengths);
  options.seed = seed;
  options.forced_share = 0.2;
  options.contributions = true;
  options.initial_states = true;
  return Rollout(learner.spec(), *learner.published(), options);
}

inline PpoOptions FirstPass() {
  PpoOptions options;
  options.update_statistics = true;
  return options;
}

inline void ExpectSame(const NamedTensors& actual,
                       const NamedTensors& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    EXPECT_EQ(actual[i].first, expected[i].first);
    EXPECT_TRUE(actual[i].second.equal(expected[i].second)) << actual[i].first;
  }
}

// Largest relative L2 difference over tensors.
inline double RelativeDifference(const NamedTensors& actual,
                                 const NamedTensors& expected) {
  double largest = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const at::Tensor e = expected[i].second.to(at::kDouble);
    const double norm = e.norm().item<double>();
    const double gap =
        actual[i].second.to(at::kDouble).sub(e).norm().item<double>();
    largest = std::max(largest, norm > 0 ? gap / norm : gap);
  }
  return largest;
}

// Relative L2 difference over all tensors as one vector: what a split of a
// batch may change by rounding. (A tensor whose sum nearly cancels has more.)
inline double WholeDifference(const NamedTensors& actual,
                              const NamedTensors& expected) {
  double gap = 0, norm = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const at::Tensor e = expected[i].second.to(at::kDouble);
    norm += e.square().sum().item<double>();
    gap +=
        actual[i].second.to(at::kDouble).sub(e).square().sum().item<double>();
  }
  return std::sqrt(gap / norm);
}

}  // namespace esper::ppo
#endif  // ESPER_TESTS_CORE_PPO_LEARNER_FIXTURE_H_
