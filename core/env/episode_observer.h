#ifndef ESPER_CORE_ENV_EPISODE_OBSERVER_H_
#define ESPER_CORE_ENV_EPISODE_OBSERVER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/env/episode_config.h"
#include "core/env/episode_types.h"
#include "core/env/report_views.h"
#include "core/env/trainer_options.h"
#include "core/policy/action_mask.h"
#include "core/policy/observation.h"
#include "core/policy/signal_tracker.h"
#include "core/slot/counterfactual.h"

namespace esper::env {

// Turns what an epoch measured into what the policy sees: follows the host's
// curve over the episode, remembers the last action, builds features and masks.
//
// Thread safety: none.
class EpisodeObserver {
 public:
  // `config` is read here only.
  explicit EpisodeObserver(const EpisodeConfig& config);

  // Takes one epoch in: contributions measured in it count as fresh.
  absl::StatusOr<policy::TrainingSignals> Update(
      int epoch, const TrainingStats& training,
      const slot::CounterfactualResult& measured, const SlotReports& reports);

  // The signals of the same epoch once more, for slots that have moved on
  // since. Changes nothing.
  absl::StatusOr<policy::TrainingSignals> Peek(
      int epoch, const TrainingStats& training,
      const slot::CounterfactualResult& measured,
      const SlotReports& reports) const;

  // Features and masks of `signals`, for the slots as reported; a control run
  // narrows the masks unless this is the `final` observation, which nothing
  // follows. `live_seeds`: in the whole model.
  absl::StatusOr<Observation> Observe(const policy::TrainingSignals& signals,
                                      const SlotReports& reports,
                                      int64_t live_seeds,
                                      bool final = false) const;

  // Minimum of the last `window` accuracies; absent if window <= 0.
  std::optional<double> StableAccuracy(int64_t window) const;

  // The last action and the freshness of measurements.
  policy::ObservationTracking& tracking() { return tracking_; }

 private:
  policy::SignalTracker::Epoch Describe(
      int epoch, const TrainingStats& training,
      const slot::CounterfactualResult& measured,
      const SlotReports& reports) const;

  policy::ActionMaskOptions mask_options_;
  policy::ObservationOptions observation_options_;
  const std::optional<ControlSchedule> control_;
  policy::SignalTracker tracker_;
  policy::ObservationTracking tracking_;
};

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_EPISODE_OBSERVER_H_
