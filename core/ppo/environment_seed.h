#ifndef ESPER_CORE_PPO_ENVIRONMENT_SEED_H_
#define ESPER_CORE_PPO_ENVIRONMENT_SEED_H_

#include <cstdint>

namespace esper::ppo {

// Seed of environment `environment` (of `per_batch`) in batch `batch`, as the
// reference implementation numbers them: what a run must use to repeat one of
// its runs episode by episode.
constexpr int64_t EnvironmentSeed(int64_t root, int64_t batch,
                                  int64_t environment, int64_t per_batch) {
  return root + (batch * per_batch + environment) * 1009;
}

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_ENVIRONMENT_SEED_H_
