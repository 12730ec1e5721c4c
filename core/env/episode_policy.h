#ifndef ESPER_CORE_ENV_EPISODE_POLICY_H_
#define ESPER_CORE_ENV_EPISODE_POLICY_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/env/episode.h"
#include "core/policy/actions.h"

namespace esper::env {

// Chooses the actions of episodes in this process, one episode at a time. What
// a trained policy has to beat is written against this.
//
// Thread safety: none.
class EpisodePolicy {
 public:
  virtual ~EpisodePolicy() = default;

  // `episode` is new: forget the one before.
  virtual void Reset(const Episode& episode) = 0;

  // The next action of an episode that is not done.
  virtual policy::FactoredAction Act(const Episode& episode) = 0;
};

// The baselines:
//   "never_grow"    WAIT throughout: the host alone.
//   "random_legal"  an allowed op, then an allowed entry of each head that
//                   matters to it, all equally likely; a function of (episode
//                   seed, step, masks).
//   "heuristic"     policy::HeuristicPolicy; a new seed goes into the first
//                   slot that allows it, with the default ramp.
// INVALID_ARGUMENT for any other name, with the nearest.
absl::StatusOr<std::unique_ptr<EpisodePolicy>> MakeBaseline(
    const std::string& name);
std::vector<std::string> BaselineNames();

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_EPISODE_POLICY_H_
