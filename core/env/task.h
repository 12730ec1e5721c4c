#ifndef ESPER_CORE_ENV_TASK_H_
#define ESPER_CORE_ENV_TASK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/env/dataset.h"
#include "core/env/loss_reward.h"
#include "core/env/trainer_options.h"
#include "core/slot/topology.h"

namespace esper::host {
class Host;
}  // namespace esper::host

namespace esper::env {

// How a task makes its hosts.
struct HostFactory {
  slot::Topology topology = slot::Topology::kCnn;
  int64_t parameter_count = 0;  // Trainable, without seeds.
  // Initial weights are a function of the seed alone.
  std::function<absl::StatusOr<std::shared_ptr<host::Host>>(uint64_t seed)>
      create;
};

// What an environment grows a network for: data, host and slots. Immutable
// once loaded, and shared by all episodes of a process.
struct Task {
  std::string name;  // "digits".

  // Disjoint parts of the data.
  std::shared_ptr<const Dataset> train;   // The host trains on it.
  std::shared_ptr<const Dataset> reward;  // Held out; makes rewards.
  // For reports only, never for reward or observation.
  std::shared_ptr<const Dataset> test;
  // Values of a label: classes of images, or characters of the vocabulary.
  int64_t num_classes = 0;

  HostFactory host;
  std::vector<std::string> slot_ids;  // In action order.

  int64_t batch_size = 64;  // Training samples in one optimiser step.
  // Samples that are evaluated in one pass; 0 = all. Bounds memory.
  int64_t eval_batch_size = 0;

  // What episodes of this task start from, see EpisodeConfig::For.
  TrainerOptions trainer;
  LossRewardConfig loss_reward;
};

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_TASK_H_
