#ifndef ESPER_CORE_PPO_TRAJECTORY_H_
#define ESPER_CORE_PPO_TRAJECTORY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/types/span.h"

namespace esper::ppo {

// How an episode ended. An episode without an end is not trained on.
enum class EpisodeEnd : uint8_t {
  kUnset,       // Still open, or given up: refused.
  kTerminated,  // The future after the last step is worth 0.
  kTruncated,   // The future is worth `bootstrap_value`.
};

// What of an episode a pass reads.
enum class TrajectoryUse : uint8_t {
  kReinforcement,  // All of it.
  // What was seen and done, to imitate it. Not read, not checked and perhaps
  // undefined are: behaviour log-probs, values, rewards, policy versions,
  // contribution targets, the end and its bootstrap.
  kImitation,
};

// One recorded episode of T >= 1 steps, as it was acted. Immutable by
// convention: its tensors are never written to, and are detached, contiguous
// host tensors. D is the observation width, S the width of the categorical
// input, K the number of heads, A the sum of the sizes of categorical heads and
// C that of Gaussian ones, all in storage order.
struct Trajectory {
  std::string episode;      // Names the episode in errors; may be empty.
  std::string spec_digest;  // PolicySpec::Digest() it was recorded under.

  at::Tensor observations;  // float32 [T, D]; raw, not normalised.
  at::Tensor categorical;   // int64 [T, S]; undefined if the spec has none.
  // bool [T, A]: packed masks. Where a head has a conditional mask this is the
  // row in force for the driver action taken.
  at::Tensor action_masks;
  at::Tensor actions;  // int64 [T, K]; 0 for a Gaussian head.
  // float32 [T, C]: values of the Gaussian heads; undefined without one.
  at::Tensor continuous_actions;
  // float32 [T, K]: log-probability (of a Gaussian head: log density) of each
  // action when it was taken, nats.
  at::Tensor behaviour_log_probs;
  at::Tensor values;   // float32 [T]: V(s) of the acting version, its units.
  at::Tensor rewards;  // float32 [T]: raw.
  // int64 [T]: driver action that took effect: the one taken, or the driver's
  // do-nothing action where the environment refused it. Undefined: as taken.
  at::Tensor effective_choices;
  at::Tensor forced;           // bool [T]; undefined: never forced.
  at::Tensor policy_versions;  // int64 [T]: version that chose each action.

  // Targets of the contribution predictor, percentage points: undefined if
  // nothing was ever measured.
  at::Tensor contribution_targets;  // float32 [T, S].
  at::Tensor contribution_mask;     // bool [T, S]: true where measured.
  at::Tensor contribution_fresh;    // bool [T]: measured at this very step.

  EpisodeEnd end = EpisodeEnd::kUnset;
  // V of the final observation, units of `values`; required when truncated and
  // absent (or 0) when terminated.
  std::optional<float> bootstrap_value;

  // float32 [L, H] each: recurrent state before step 0; undefined: zeros.
  at::Tensor initial_h;
  at::Tensor initial_c;

  int64_t length() const {
    return observations.defined() ? observations.size(0) : 0;
  }
};

// Episodes as padded rows of equal length: B rows of T = the longest.
// Padding repeats the last step of a row, so that every padded step is one the
// network has seen to be harmless; `valid` is false there and no loss reads it.
struct TrajectoryBatch {
  at::Tensor observations;          // float32 [B, T, D]; raw.
  at::Tensor categorical;           // int64 [B, T, S] or undefined.
  at::Tensor action_masks;          // bool [B, T, A].
  at::Tensor actions;               // int64 [B, T, K].
  at::Tensor continuous_actions;    // float32 [B, T, C] or undefined.
  at::Tensor behaviour_log_probs;   // float32 [B, T, K]; kReinforcement only.
  at::Tensor effective_choices;     // int64 [B, T]; undefined: no driver.
  at::Tensor forced;                // bool [B, T].
  at::Tensor policy_versions;       // int64 [B, T]; kReinforcement only.
  at::Tensor contribution_targets;  // float32 [B, T, S] or undefined.
  at::Tensor contribution_active;   // bool [B, T, S]: measured, fresh, valid.
  at::Tensor valid;                 // bool [B, T].
  at::Tensor initial_h;             // float32 [L, B, H] or undefined: zeros.
  at::Tensor initial_c;             // float32 [L, B, H] or undefined: zeros.

  // int64 [N]: positions b * T + t of the valid steps, row by row.
  at::Tensor valid_index;
  int64_t steps() const { return valid_index.size(0); }

  // x: [B, T, ...] -> [N, ...]: the valid steps; differentiable.
  at::Tensor Flatten(const at::Tensor& x) const;
};

// Pads trajectories that `TrajectoryRules` accepts into one batch. Initial
// states that are absent become zeros if another row has one; if none has, the
// batch's are undefined. `driver` is the head that effective choices are of, -1
// if there is none. At least one trajectory is required.
TrajectoryBatch PadTrajectories(
    absl::Span<const Trajectory> trajectories, int64_t driver,
    TrajectoryUse use = TrajectoryUse::kReinforcement);

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_TRAJECTORY_H_
