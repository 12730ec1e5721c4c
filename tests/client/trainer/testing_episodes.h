#ifndef ESPER_TESTS_CLIENT_TRAINER_TESTING_EPISODES_H_
#define ESPER_TESTS_CLIENT_TRAINER_TESTING_EPISODES_H_

#include <vector>

#include "client/tensor.h"
#include "client/trainer/episode_collector.h"

namespace esper::client::testing {

// A delivered episode of two steps under one version.
inline FinishedEpisode MakeEpisode(uint64_t number, int64_t version = 1) {
  FinishedEpisode episode;
  episode.lease.episode = number;
  episode.lease.seed = 100 + number;
  episode.policy_version = version;
  episode.summary.set_end_kind(v1::END_KIND_TRUNCATED);
  episode.summary.set_end_reason("max_epochs, \"all\"\nof them");
  episode.summary.set_steps(2);
  episode.summary.set_episode_return(1.5 + number);
  episode.summary.set_host_accuracy(80 + number);
  episode.summary.set_host_accuracy_without_seeds(70 + number);
  episode.summary.set_seeds_germinated(2);
  episode.summary.set_seeds_blended(1);
  v1::StepReport step;
  step.set_epoch(1);
  step.set_op("GERMINATE");
  v1::SlotSnapshot* slot = step.add_slots();
  slot->set_slot("r0c0");
  slot->set_stage("BLENDING");
  slot->set_alpha(0.5);
  slot = step.add_slots();
  slot->set_slot("r0c1");
  slot->set_contribution(1.5);
  slot->set_contribution_error(0.25);
  episode.steps = {step, step};
  episode.trajectory.set_end_kind(v1::END_KIND_TRUNCATED);
  *episode.trajectory.mutable_policy_versions() =
      PackTensor(std::vector<int64_t>{version, version}, {2});
  return episode;
}

}  // namespace esper::client::testing
#endif  // ESPER_TESTS_CLIENT_TRAINER_TESTING_EPISODES_H_
