#ifndef ESPER_CORE_PPO_LEARNER_H_
#define ESPER_CORE_PPO_LEARNER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "core/policy/policy_spec.h"
#include "core/ppo/learner_options.h"
#include "core/ppo/losses.h"
#include "core/ppo/normalizer.h"
#include "core/ppo/open_evaluation.h"
#include "core/ppo/trajectory.h"
#include "core/tensor/safetensors.h"

namespace esper::ppo {

using tensor::NamedTensors;

class LearnerCore;   // core/ppo/learner_core.h
struct LearnerMark;  // core/ppo/learner_core.h

// A published version of the policy: what acting needs. Immutable and shared;
// no tensor in it requires or can get a gradient. Thread-safe.
struct PolicySnapshot {
  int64_t version = 0;   // 1 for the initial weights, one more per publish.
  NamedTensors weights;  // float32, host; copies, in state-dict order.
  ObservationScaler scaler;
  // Raw reward per unit of V: what values recorded under this version mean.
  double value_unit = 1;
  // Probability floors to act with: the specification's times `floor_scale`.
  policy::FloorSettings floors;
  double floor_scale = 1;  // In [0, 1].
};

// The outcome of one forward-backward pass.
struct ForwardBackwardReport {
  // Named terms and measures: "policy", "value", "q", "entropy",
  // "entropy_floor", "contribution", "total", "approx_kl", "clip_fraction",
  // "explained_variance", "gradient_norm" (of this pass alone),
  // "entropy.<head>", "clip_fraction.<head>", "entropy_coef", ...; all of them
  // in docs/training.md.
  std::map<std::string, double> metrics;
  // What looks wrong in this pass (core/ppo/anomaly.h, core/ppo/lstm_health.h);
  // never filled in for a part of a batch.
  std::vector<std::string> anomalies;
  int64_t transitions = 0;  // Valid steps.
  int64_t episodes = 0;
  // Largest and mean |log-prob now - recorded| over the steps of the published
  // version; absent after an optimiser step (except in a first pass, which asks
  // the published weights then), and if no step is of it.
  std::optional<double> ratio_check_max;
  std::optional<double> ratio_check_mean;
  bool ratio_alarm = false;  // ratio_check_max is above the alarm limit.
  double approx_kl = 0;
  bool kl_stop = false;            // Nothing was accumulated.
  bool skipped_nonfinite = false;  // Nothing was accumulated, ...
  std::string nonfinite_term;      // ... and this term or output was at fault.
  bool accumulated = false;        // A gradient was added.
  // The whole update was taken back with the skipped pass: start a new one.
  bool rolled_back = false;
  BatchTotals totals;     // Of these trajectories alone.
  LossOptions effective;  // The coefficients used.
};

struct OptimStepReport {
  bool stepped = false;          // False: the gradient was not finite.
  std::string nonfinite_tensor;  // The first parameter at fault.
  double gradient_norm_before_clip = 0;
  double weights_change_l2 = 0;
  int64_t optimizer_steps = 0;  // Since the learner began.
  bool rolled_back = false;     // The whole update was taken back.
  // "gradient_norm_drift", "gradient_health_drift": the norm before clipping
  // moved away from its running average.
  std::vector<std::string> anomalies;
};

// Everything a learner is, as named tensors and one JSON text; the caller
// stores both (see core/tensor/safetensors.h).
struct LearnerState {
  // "weights.<name>", "adam.m.<name>", "adam.v.<name>", and, in the middle of
  // an update, "gradient.<name>", "published.<name>", "start.adam.m.<name>",
  // "start.adam.v.<name>".
  NamedTensors tensors;
  // Counters, normalisers, version, specification digest, configuration, and
  // the options of the last pass and step.
  std::string json;
};

// Improves a policy: forward-backward accumulates gradients, optim-step applies
// and clears them, publish makes a version of the result. An update is
// everything between two publishes; the first pass of an update should be the
// one that feeds the statistics.
//
//   trajectories -> ForwardBackward (passes x parts) -> OptimStep -> Publish
//
// What is frozen between publishes: observation statistics and the deviation of
// returns, so that every part and pass of an update sees the same numbers. The
// value normaliser moves with the pass that updates statistics, and the last
// layers of V and Q move against it (PopArt), so that V in reward units stays.
//
// Every call is all or nothing: on an error weights, optimiser, gradients,
// statistics and counters are as before, except that a pass or step that is not
// finite is counted and takes back the update it belongs to (see
// LearnerConfig::rollback_failed_updates).
//
// Floors: acting and training of a version use its floor scale. Steps of an
// older, still admissible version are scored under the floors in force now, as
// they would act now; their ratio's denominator is what they acted with, so it
// stays the ratio of two policies as they act.
//
// Thread safety: used from one training thread. Only `published()` may be
// called from any thread.
class Learner {
 public:
  // A fresh network drawn from `init_seed`; version 1 is published. Errors:
  // INVALID_ARGUMENT for an option outside its range.
  static absl::StatusOr<std::unique_ptr<Learner>> Create(
      const policy::PolicySpec& spec, const LearnerConfig& config,
      uint64_t init_seed);
  // Starts from given weights (state-dict names). INVALID_ARGUMENT also for
  // missing, surplus, misshapen or non-finite weights.
  static absl::StatusOr<std::unique_ptr<Learner>> CreateFromWeights(
      const policy::PolicySpec& spec, const LearnerConfig& config,
      const NamedTensors& weights);
  // Starts from what `Save` returned.
  static absl::StatusOr<std::unique_ptr<Learner>> CreateFromState(
      const policy::PolicySpec& spec, const LearnerConfig& config,
      const LearnerState& state);
  ~Learner();

  // Adds the gradient of a loss on these episodes to what is accumulated
  // (unless options.totals_only). Errors: those of `TrajectoryRules`, with the
  // row; UNKNOWN_VERSION and STALE_BEHAVIOUR for steps of a version that is
  // not there or too old; BEHAVIOUR_MISMATCH if acting and training disagree;
  // MALFORMED_REQUEST for an option outside its range or no episode at all.
  absl::StatusOr<ForwardBackwardReport> ForwardBackward(
      absl::Span<const Trajectory> trajectories, const PassOptions& options);

  // Clips the accumulated gradient, takes one Adam step and clears it. A
  // gradient that is not finite is dropped and nothing else changes; the third
  // in a row (counting skipped passes) is TRAINING_DIVERGED; the published
  // version stays, and training may go on from it.
  // FAILED_PRECONDITION (NOT_DIFFERENTIABLE) if nothing was accumulated.
  absl::StatusOr<OptimStepReport> OptimStep(const OptimStepOptions& options);

  // Makes a version of the current weights and statistics, which from now on
  // are those that trajectories are recorded under. Ends an update: schedules
  // advance if an optimiser step was taken in it.
  std::shared_ptr<const PolicySnapshot> Publish();
  // The same under a number of the caller's, above all before it.
  std::shared_ptr<const PolicySnapshot> Publish(int64_t version);
  std::shared_ptr<const PolicySnapshot> published() const;
  // Gives the published version another number and makes it the first of this
  // learner's history: steps recorded under any other are refused. For weights
  // that are new where numbers were given out before.
  void StartHistory(int64_t version);

  // Goes back to the published version as it was when it was published:
  // weights, optimiser, statistics, counters. Drops what is accumulated.
  // Returns how many optimiser steps were dropped.
  int64_t DropUnpublished();

  // Evaluates recorded actions under the training weights. With `keep_graph`
  // the result can take cotangents once. Validates as ForwardBackward does.
  absl::StatusOr<std::unique_ptr<OpenEvaluation>> Evaluate(
      absl::Span<const Trajectory> trajectories, bool keep_graph);
  // Adds the gradient that the cotangents give, and returns the norm of all
  // accumulated so far. Errors: NOT_DIFFERENTIABLE (no graph, used, or another
  // learner's), EVALUATION_EXPIRED (weights moved since), POLICY_TERM_MISSING,
  // UNTRAINED_OUTPUT, BAD_SHAPE, NONFINITE_INPUT.
  absl::StatusOr<double> AccumulateGradients(OpenEvaluation& evaluation,
                                             const Cotangents& cotangents);
  // Drops what is accumulated.
  void ClearGradients();

  // A point to come back to: weights, gradients, optimiser, statistics,
  // counters and what is published. Costs a copy of the weights.
  std::shared_ptr<const LearnerMark> Mark() const;
  // Makes the learner what it was at the mark, which must be its own and made
  // after the last `Restore`. Evaluations with a graph expire if the weights
  // have moved since.
  void ReturnTo(const LearnerMark& mark);

  // The tensors are copies.
  LearnerState Save() const;
  // Replaces everything by a saved state. SPEC_MISMATCH or CORRUPT_CHECKPOINT,
  // naming the tensor; the learner is then unchanged.
  absl::Status Restore(const LearnerState& state);

  const policy::PolicySpec& spec() const;
  const LearnerConfig& config() const;
  int64_t policy_version() const;
  int64_t optimizer_steps() const;      // All, ever.
  int64_t unpublished_steps() const;    // Since the last publish.
  int64_t updates() const;              // Finished, with a step in each.
  int64_t transitions_trained() const;  // Steps of first passes.
  bool has_gradient() const;
  NamedTensors Weights() const;  // Copies of the training weights.
  // Copies of the accumulated gradient; zeros where a parameter has none.
  NamedTensors Gradients() const;
  double value_sigma() const;

 private:
  explicit Learner(std::unique_ptr<LearnerCore> core);

  std::unique_ptr<LearnerCore> core_;

  mutable absl::Mutex mu_;
  std::shared_ptr<const PolicySnapshot> published_ ABSL_GUARDED_BY(mu_);
};

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_LEARNER_H_
