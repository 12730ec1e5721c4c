#ifndef ESPER_CLIENT_ENV_BASELINE_COMMAND_H_
#define ESPER_CLIENT_ENV_BASELINE_COMMAND_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/env/task.h"

namespace esper::client {

// A run of episodes that needs neither server nor coordinator.
struct BaselineCommand {
  std::string baseline;  // Of env::BaselineNames().
  int episodes = 10;     // Of each set of options, >= 1.
  int max_epochs = 50;
  // The root of the training run to compare with: its evaluation episodes are
  // played.
  uint64_t root_seed = 42;
  int threads = 1;          // Episodes at a time.
  std::string env_options;  // See env::EpisodeConfigFromJson.
  // A second set of options, for a paired comparison with the first one on
  // the same seeds; empty: none.
  std::string compare_env_options;
  // File for one JSON line per episode; empty: standard output.
  std::string output;
};

// Plays the episodes, writes a line as each is done, and returns one JSON
// object that sums them up: per set of options the means of return and test
// accuracy with 95 % intervals, and of two sets the paired comparison.
//
// `stopped` is asked between episodes and ends the run early with CANCELLED.
// Errors: INVALID_ARGUMENT for an unknown baseline, options that are wrong, or
// a comparison of too few episodes; UNAVAILABLE naming an output that cannot be
// written.
absl::StatusOr<std::string> RunBaseline(
    const BaselineCommand& command, std::shared_ptr<const env::Task> task,
    const std::function<bool()>& stopped = nullptr);

}  // namespace esper::client
#endif  // ESPER_CLIENT_ENV_BASELINE_COMMAND_H_
