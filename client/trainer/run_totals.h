#ifndef ESPER_CLIENT_TRAINER_RUN_TOTALS_H_
#define ESPER_CLIENT_TRAINER_RUN_TOTALS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/trainer/episode_collector.h"
#include "client/trainer/policy_update.h"
#include "nlohmann/json.hpp"

namespace esper::client {

// What a training run has done so far, over all its restarts: the content of
// `summary.json`, and what a resumed run goes on from. A plain value.
struct RunTotals {
  int64_t updates = 0;               // With at least one optimiser step.
  int64_t updates_without_step = 0;  // The divergence stopped the first pass.
  int64_t updates_failed = 0;        // Refused by the server; batch dropped.
  int64_t optimizer_steps = 0;
  int64_t transitions_trained = 0;  // Steps of episodes, not times passes.
  int64_t env_steps = 0;            // Steps of delivered episodes.
  int64_t episodes = 0;             // Delivered.
  int64_t episodes_aborted = 0;     // Given up by a worker, and run again.
  int64_t episodes_stale = 0;       // Dropped: another version acted in them.
  int64_t evaluations = 0;          // Episodes of evaluation.
  // In the stream of seeds: one more than the highest delivered.
  uint64_t next_episode = 0;
  int64_t seeds_germinated = 0;
  int64_t seeds_blended = 0;
  int64_t seeds_fossilized = 0;
  int64_t seeds_pruned = 0;
  // Largest over the updates; negative if never measured.
  double ratio_check_max = -1;
  int64_t policy_version = 1;
  // Publishes that led to `policy_version`, which is 1 + publishes. When the
  // server comes back at an older version, the lost ones no longer count.
  int64_t publishes = 0;
  // Sum over all optimiser steps of the L2 norm of the change of all weights:
  // the length of the way that the weights went.
  double weights_change_l2 = 0;
  // Newest checkpoint that the run made, and the version in it; empty: none.
  std::string checkpoint;
  int64_t checkpoint_version = 0;
  double wall_seconds = 0;  // Of training, over all restarts.
  int64_t restarts = 0;
  bool finished = false;  // False while it runs, or if it was killed.
  // Per delivered episode, in order of delivery.
  std::vector<double> host_accuracy;                // Percent, test split.
  std::vector<double> host_accuracy_without_seeds;  // Percent.
  std::vector<double> episode_return;

  // With and without a step; refused ones not.
  int64_t all_updates() const { return updates + updates_without_step; }

  void Add(const FinishedEpisode& episode);
  void Add(const UpdateReport& update);
  // The server publishes this version now.
  void SetVersion(int64_t version);
};

nlohmann::ordered_json ToJson(const RunTotals& totals);
// INVALID_ARGUMENT if a member is missing or of another type.
absl::StatusOr<RunTotals> RunTotalsFromJson(const nlohmann::json& json);

}  // namespace esper::client
#endif  // ESPER_CLIENT_TRAINER_RUN_TOTALS_H_
