#ifndef ESPER_CORE_ENV_EPISODE_TYPES_H_
#define ESPER_CORE_ENV_EPISODE_TYPES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/policy/action_mask.h"
#include "core/policy/actions.h"

// Plain records that an episode hands out: numbers only, no tensors, so none of
// them can keep a gradient or a network alive.
namespace esper::env {

// What the policy is asked with. S is the number of slots; D = 23 + 31 S.
struct Observation {
  int epoch = 0;                // Host epochs done; the first one has 1.
  std::vector<float> features;  // float32 [D]; raw, not normalised.
  std::vector<int64_t> blueprint_indices;  // int64 [S]; -1 = empty slot.
  policy::ActionMask mask;
};

// One slot at the end of a step, for the timeline of a report.
struct SlotSnapshot {
  std::string slot_id;    // "r0c1".
  std::string stage;      // "BLENDING"; empty for an empty slot.
  std::string blueprint;  // "conv_light"; empty for an empty slot.
  double alpha = 0;       // In [0, 1].
  // Percentage points; absent if not measured at this step.
  std::optional<double> contribution;
  // Its share of what all seeds add, percentage points: exact up to four
  // blended seeds, above that sampled in the last epoch alone.
  std::optional<double> shapley;
};

// What one action did.
struct StepResult {
  int epoch = 0;      // Host epoch in which the action was taken, 1-based.
  double reward = 0;  // Raw.
  // Named parts of the reward; their sum is `reward`.
  std::vector<std::pair<std::string, double>> reward_parts;
  // A rollback took back every earlier reward of the episode (an option that
  // is off by default).
  bool forfeits_earlier_rewards = false;
  policy::FactoredAction action;  // As it was given.
  // The action's op, or WAIT if it was vetoed or refused.
  policy::Op effective_op = policy::Op::kWait;
  bool success = true;
  std::string refusal;  // Why `success` is false; empty otherwise.
  bool forced = false;  // WAIT was the only operation allowed.

  // Contributions measured by the validation that this action was based on:
  // float32 [S] percentage points, and which of them were measured.
  std::vector<float> contribution_targets;
  std::vector<uint8_t> contribution_mask;
  // Standard error of each measured contribution, percentage points; 0 where
  // not measured.
  std::vector<float> contribution_errors;
  bool contribution_fresh = false;  // Some entry was measured at this step.

  // Validation and training of this epoch, before the action.
  double train_loss = 0;
  double train_accuracy = 0;  // Percent.
  double val_loss = 0;
  double val_accuracy = 0;  // Percent, reward split.
  // Percent, every seed at alpha 0. Absent when no seed was blended in.
  std::optional<double> val_accuracy_without_seeds;

  std::vector<SlotSnapshot> slots;  // After the action and the tick.

  // At most one is true; either ends the episode.
  bool terminated = false;  // The governor rolled the host back.
  bool truncated = false;   // The last epoch is done.
  std::string end_reason;   // "governor_nan", "max_epochs", ...; else empty.
};

// One finished (or abandoned) episode. The accuracies on the test split are
// for reports only; nothing that the policy sees depends on them.
struct EpisodeSummary {
  bool terminated = false;
  bool truncated = false;
  std::string end_reason;
  int steps = 0;                           // Actions taken.
  double episode_return = 0;               // Sum of raw rewards.
  double final_val_accuracy = 0;           // Percent, reward split.
  double host_accuracy = 0;                // Percent, test split, as grown.
  double host_accuracy_without_seeds = 0;  // Percent, test split, all off.
  int seeds_germinated = 0;
  int seeds_blended = 0;  // Reached BLENDING.
  int seeds_fossilized = 0;
  int seeds_contributing = 0;  // Fossilised with contribution >= 1 point.
  int seeds_pruned = 0;
  int64_t host_params = 0;
  int64_t total_params = 0;  // Host and every seed in a slot, gates included.
  double stability = 1;      // 1 / (1 + variance of the last 20 rewards).
  bool success = false;      // Final reward-split accuracy >= 80 percent.
  double wall_seconds = 0;   // Inside Create and Step.
};

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_EPISODE_TYPES_H_
