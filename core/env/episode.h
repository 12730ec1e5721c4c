#ifndef ESPER_CORE_ENV_EPISODE_H_
#define ESPER_CORE_ENV_EPISODE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/env/episode_config.h"
#include "core/env/episode_types.h"
#include "core/env/report_views.h"
#include "core/policy/actions.h"
#include "core/policy/signal_tracker.h"

namespace esper::env {

// One environment: a fresh host network that trains for `max_epochs` epochs
// while a policy plants, blends, keeps and removes seeds in its slots.
//
// One step is one host epoch. `Create` trains and validates the first epoch, so
// there is an observation at once. `Step` carries the action out, rewards it
// by its outcome, ages the slots, and trains and validates the next epoch.
//
// Ends: truncated after the action of the last epoch (`observation` is then
// the state after it, for the bootstrap), or terminated when the governor
// panics on the validation of an epoch: the host is rolled back, and the last
// action taken carries the penalty. A panic before any action leaves a `done`
// episode without a step.
//
// Everything in an episode is a function of (task, config, actions): no global
// generator is read or advanced, and other episodes in the process change
// nothing.
//
// Thread safety: none; but different episodes may live on different threads.
class Episode {
 public:
  // INVALID_ARGUMENT for a config out of range (no task, max_epochs < 1,
  // unknown or repeated slots, reward options that contradict each other).
  static absl::StatusOr<std::unique_ptr<Episode>> Create(EpisodeConfig config);

  ~Episode();
  Episode(const Episode&) = delete;
  Episode& operator=(const Episode&) = delete;

  // What the next action is to be based on; after a truncated episode the
  // final observation. Valid until the next Step.
  const Observation& observation() const;

  // What the observation was made of: the host's curve, and the occupied slots
  // before the next action. For policies that are no networks; valid until the
  // next Step.
  const policy::TrainingSignals& signals() const;
  const SlotReports& reports() const;

  // Takes one step. Errors (those below change nothing, any other ends the
  // episode):
  //   FAILED_PRECONDITION  the episode is over;
  //   INVALID_ARGUMENT     a head of the action is out of range.
  // An action that the masks disallow is not an error: it is refused by its
  // handler, counts as WAIT, and says why in `refusal`.
  absl::StatusOr<StepResult> Step(const policy::FactoredAction& action);

  // What Step would say of the action, without taking it.
  absl::Status CheckAction(const policy::FactoredAction& action) const;

  // True once a step was terminated or truncated.
  bool done() const;
  int steps() const;  // Actions taken.

  // Measures the test split, with and without the seeds. Costs a forward pass
  // over it; may be called at any time, and changes nothing.
  EpisodeSummary Summary() const;

  const EpisodeConfig& config() const;
  int num_slots() const;
  int observation_width() const;

 private:
  class Impl;
  explicit Episode(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_EPISODE_H_
