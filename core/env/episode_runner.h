#ifndef ESPER_CORE_ENV_EPISODE_RUNNER_H_
#define ESPER_CORE_ENV_EPISODE_RUNNER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/env/episode_config.h"
#include "core/env/episode_policy.h"
#include "core/env/episode_types.h"

namespace esper::env {

// One whole episode.
struct EpisodeRecord {
  int arm = 0;      // Of EpisodeRunner; 0 otherwise.
  int episode = 0;  // Number in the stream of seeds; 0 otherwise.
  uint64_t seed = 0;
  EpisodeSummary summary;
  // Each part of the reward, summed over the episode. They add up to
  // `summary.episode_return`, unless a rollback took back earlier rewards.
  std::vector<std::pair<std::string, double>> part_sums;
};

// Plays an episode from its start to its end. Errors: those of Episode.
absl::StatusOr<EpisodeRecord> PlayEpisode(EpisodeConfig config,
                                          EpisodePolicy& policy);

// Seed of an evaluation episode, by number from 0: that of the evaluation
// rounds of a training run with the same root, so that episodes of both are
// pairs with the same data order and first weights.
uint64_t EvaluationSeed(uint64_t root_seed, uint64_t episode);

// Plays the same episodes under one or several variants ("arms"): the seeds of
// an arm are those of every other. Arms are interleaved: episode 0 of each,
// then episode 1 of each, so that whatever drifts on the machine meets all.
//
// Thread safety: none.
class EpisodeRunner {
 public:
  struct Arm {
    EpisodeConfig config;  // Its seed is replaced.
    std::function<std::unique_ptr<EpisodePolicy>()> make_policy;
  };
  struct Options {
    int episodes = 1;  // Of each arm, >= 1.
    uint64_t root_seed = 42;
    // Episodes at a time, >= 1, each with the process's number of threads for
    // one tensor operation (at::set_num_threads).
    int threads = 1;
  };

  // INVALID_ARGUMENT for options out of range or no arm.
  static absl::StatusOr<EpisodeRunner> Create(std::vector<Arm> arms,
                                              const Options& options);

  // Plays all episodes. `on_record` is called for one at a time, in the order
  // of (episode, arm) whatever the threads do, and stops the run by an error.
  // Errors: the first one of an episode or of `on_record`.
  absl::Status Run(
      const std::function<absl::Status(const EpisodeRecord&)>& on_record);

 private:
  EpisodeRunner(std::vector<Arm> arms, const Options& options)
      : arms_(std::move(arms)), options_(options) {}

  absl::StatusOr<EpisodeRecord> Play(int job) const;

  std::vector<Arm> arms_;
  Options options_;
};

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_EPISODE_RUNNER_H_
