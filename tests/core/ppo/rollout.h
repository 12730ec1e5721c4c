#ifndef ESPER_TESTS_CORE_PPO_ROLLOUT_H_
#define ESPER_TESTS_CORE_PPO_ROLLOUT_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "core/policy/policy_spec.h"
#include "core/ppo/learner.h"
#include "core/ppo/trajectory.h"

namespace esper::ppo {

// A network-growing policy small enough to train in a test: two slots, 24 wide.
policy::PolicySpec SmallSpec();
// One head "arm" of `arms` choices, two observations; nothing else.
policy::PolicySpec BanditSpec(int64_t arms);

// What an environment does at a step of one row; fills the reward.
using RewardFunction =
    std::function<float(int64_t row, int64_t step, const at::Tensor& actions)>;

// The same for the values of Gaussian heads, float32 [C].
using ContinuousReward =
    std::function<float(int64_t row, int64_t step, const at::Tensor& values)>;

struct RolloutOptions {
  std::vector<int64_t> lengths = {6};  // Steps of each row.
  uint64_t seed = 1;
  bool random_masks = true;   // Otherwise everything is allowed.
  double forced_share = 0.0;  // Of steps marked as forced.
  bool contributions = false;
  bool initial_states = false;
  // Both absent: rewards drawn at random.
  RewardFunction reward;
  ContinuousReward continuous_reward;
};

// Episodes acted by a published policy in a random environment: rows end
// truncated and terminated in turn. Deterministic in the seed.
std::vector<Trajectory> Rollout(const policy::PolicySpec& spec,
                                const PolicySnapshot& snapshot,
                                const RolloutOptions& options);

}  // namespace esper::ppo
#endif  // ESPER_TESTS_CORE_PPO_ROLLOUT_H_
