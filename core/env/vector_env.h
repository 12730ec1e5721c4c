#ifndef ESPER_CORE_ENV_VECTOR_ENV_H_
#define ESPER_CORE_ENV_VECTOR_ENV_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/env/episode.h"

namespace esper::env {

// Action for one environment of a VectorEnv.
struct EnvAction {
  int env_id = 0;
  policy::FactoredAction action;
};

// K environments of one process, each found by its id. They step one after
// another on the calling thread; since an episode depends on its own config
// only, results do not depend on K, on ids or on the order of calls.
//
// Thread safety: none.
class VectorEnv {
 public:
  // `capacity` >= 1: environments that may exist at a time; ids are
  // 0..capacity-1.
  explicit VectorEnv(int capacity);

  int capacity() const { return static_cast<int>(episodes_.size()); }

  // Starts an episode in environment `env_id`, dropping the one it had.
  // INVALID_ARGUMENT if the id is out of range; errors of Episode::Create, and
  // then the environment is empty.
  absl::Status Start(int env_id, EpisodeConfig config);

  // Drops the episode of `env_id`; without effect if it has none or is out of
  // range.
  void Stop(int env_id);

  // The episode of `env_id`; nullptr if it has none or is out of range. Valid
  // until Start or Stop of that id.
  Episode* episode(int env_id);
  const Episode* episode(int env_id) const;

  // Ids of the environments whose episode is not done, ascending.
  std::vector<int> Running() const;

  // Steps the named environments and returns their results in the order of
  // `actions`. Checks all before it steps any: INVALID_ARGUMENT for an id that
  // is out of range or named twice, or an action out of range;
  // FAILED_PRECONDITION for an environment that has no running episode.
  absl::StatusOr<std::vector<StepResult>> Step(
      const std::vector<EnvAction>& actions);

 private:
  std::vector<std::unique_ptr<Episode>> episodes_;  // By id; null = empty.
};

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_VECTOR_ENV_H_
