#ifndef ESPER_CORE_PPO_TRAJECTORY_H_
#define ESPER_CORE_PPO_TRAJECTORY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/types/span.h"

namespace esper::policy {
struct PolicySpec;
}  // namespace esper::policy

namespace esper::ppo {

// How an episode ended. An episode without an end is not trained on.
enum class EpisodeEnd : uint8_t {
  kUnset,       // Still open, or given up: refused.
  kTerminated,  // The future after the last step is worth 0.
  kTruncated,   // The future is worth `bootstrap_value`.
};

// One recorded episode of T >= 1 steps, as it was acted. Immutable by
// convention: its tensors are never written to, and are detached, contiguous
// host tensors. D is the observation width, S the width of the categorical
// input, K the number of heads and A the sum of their sizes, both in storage
// order.
struct Trajectory {
  std::string episode;      // Names the episode in errors; may be empty.
  std::string spec_digest;  // PolicySpec::Digest() it was recorded under.

  at::Tensor observations;  // float32 [T, D]; raw, not normalised.
  at::Tensor categorical;   // int64 [T, S]; undefined if the spec has none.
  // bool [T, A]: packed masks. Where a head has a conditional mask this is the
  // row in force for the driver action taken.
  at::Tensor action_masks;
  at::Tensor actions;  // int64 [T, K].
  // float32 [T, K]: log-probability of each action when it was taken, nats.
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

// What a trajectory must agree with.
struct TrajectoryLimits {
  int64_t hidden_width = 0;   // H.
  int64_t layers = 0;         // L.
  int64_t max_length = 4096;  // Steps; longer rows are BUDGET_EXCEEDED.
};

// Checks everything that can be checked without the network. `row` is the
// position of the trajectory in its batch and goes into the error's detail with
// the step. Errors, in this order of checking:
//   SPEC_MISMATCH      another specification digest (an empty one too);
//   MALFORMED_REQUEST  no end, truncated without bootstrap, no steps;
//   BAD_SHAPE          shape or dtype of a tensor;
//   NONFINITE_INPUT    observation, reward, value, bootstrap, contribution,
//                      initial state, behaviour log-prob;
//   BAD_BLUEPRINT_INDEX  categorical input out of range;
//   INVALID_ACTION     out of range, disallowed by its own mask, not the
//                      placeholder of an irrelevant head, or an effective
//                      choice that is neither the action nor do-nothing;
//   EMPTY_ACTION_MASK  no allowed entry for a head that the action uses;
//   BAD_BEHAVIOUR      log-prob > 0, < -1000, or not 0 for an irrelevant head;
//   UNKNOWN_VERSION    a version below 1.
absl::Status ValidateTrajectory(const Trajectory& trajectory,
                                const policy::PolicySpec& spec,
                                const TrajectoryLimits& limits, int64_t row);

// Episodes as padded rows of equal length: B rows of T = the longest.
// Padding repeats the last step of a row, so that every padded step is one the
// network has seen to be harmless; `valid` is false there and no loss reads it.
struct TrajectoryBatch {
  at::Tensor observations;          // float32 [B, T, D]; raw.
  at::Tensor categorical;           // int64 [B, T, S] or undefined.
  at::Tensor action_masks;          // bool [B, T, A].
  at::Tensor actions;               // int64 [B, T, K].
  at::Tensor behaviour_log_probs;   // float32 [B, T, K].
  at::Tensor effective_choices;     // int64 [B, T].
  at::Tensor forced;                // bool [B, T].
  at::Tensor policy_versions;       // int64 [B, T].
  at::Tensor contribution_targets;  // float32 [B, T, S] or undefined.
  at::Tensor contribution_active;   // bool [B, T, S]: mask and fresh.
  at::Tensor valid;                 // bool [B, T].
  at::Tensor initial_h;             // float32 [L, B, H].
  at::Tensor initial_c;             // float32 [L, B, H].

  // int64 [N]: positions b * T + t of the valid steps, row by row.
  at::Tensor valid_index;
  int64_t steps() const { return valid_index.size(0); }

  // x: [B, T, ...] -> [N, ...]: the valid steps; differentiable.
  at::Tensor Flatten(const at::Tensor& x) const;
};

// Pads valid trajectories into one batch. At least one is required.
TrajectoryBatch PadTrajectories(absl::Span<const Trajectory> trajectories,
                                const TrajectoryLimits& limits);

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_TRAJECTORY_H_
