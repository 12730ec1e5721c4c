#ifndef ESPER_CORE_PPO_LEARNER_CORE_H_
#define ESPER_CORE_PPO_LEARNER_CORE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/policy/evaluator.h"
#include "core/policy/recurrent_policy.h"
#include "core/ppo/adam.h"
#include "core/ppo/anomaly.h"
#include "core/ppo/learner.h"
#include "core/ppo/normalizer.h"
#include "core/ppo/pass.h"
#include "core/ppo/trajectory_rules.h"
#include "core/slot/gradient_monitor.h"

namespace esper::ppo {

// The statistics of training, as one value: drafted by a pass, then committed
// whole or dropped.
struct LearnerStatistics {
  ObservationNormalizer observations;
  ReturnScaler returns;
  RewardNormalizer rewards;  // Moves with RewardScaling::kUpstream only.
  ValueNormalizer values;

  LearnerStatistics(const policy::PolicySpec& spec,
                    const LearnerConfig& config);
};

struct LearnerCounters {
  int64_t version = 0;
  int64_t optimizer_steps = 0;
  int64_t steps_since_publish = 0;
  int64_t updates = 0;
  int64_t transitions = 0;
  int64_t nonfinite_in_a_row = 0;
  int64_t passes = 0;  // Seeds the dropout of each pass.
};

// What an update began with, besides the published weights: enough to take it
// back.
struct UpdateStart {
  std::vector<Adam::Slot> slots;  // Alias tensors that are never written to.
  double learning_rate = 0;
  LearnerStatistics statistics;
  LearnerCounters counters;
};

// A trajectory batch, checked and ready for the network.
struct PreparedBatch {
  TrajectoryBatch batch;
  policy::EvaluationInputs inputs;
};

// Everything that calls change: see Learner::Mark. Tensors other than the
// weights alias what is never written to.
struct LearnerMark {
  uint64_t identity;
  uint64_t generation;
  NamedTensors weights;
  std::vector<at::Tensor> gradients;
  std::vector<Adam::Slot> slots;
  double learning_rate;
  LearnerStatistics statistics;
  UpdateStart start;
  double deviation;
  std::map<int64_t, double> value_units;
  Moments scaler_moments;
  std::shared_ptr<const PolicySnapshot> snapshot;
  LearnerCounters counters;
  bool moved_since_publish;
  std::string pass_options;
  std::string step_options;
  slot::GradientDrift drift;
  HeadCollapseMonitor collapse;
};

// The parts of a learner. Methods throw esper::Error for a caller's mistake;
// `Learner` turns it into a status.
class LearnerCore {
 public:
  LearnerCore(const policy::PolicySpec& spec, const LearnerConfig& config,
              uint64_t init_seed);

  ForwardBackwardReport ForwardBackward(
      absl::Span<const Trajectory> trajectories, const PassOptions& options);
  OptimStepReport OptimStep(const OptimStepOptions& options);
  std::shared_ptr<const PolicySnapshot> Publish(int64_t version);
  std::unique_ptr<OpenEvaluation> Evaluate(
      absl::Span<const Trajectory> trajectories, bool keep_graph);
  double AccumulateGradients(OpenEvaluation& evaluation,
                             const Cotangents& cotangents);
  void ClearGradients();
  void StartHistory(int64_t version);
  // Back to the last publish, apart from what counts failures; true if there
  // was anything to take back. Gradients are dropped.
  bool RollBackUpdate();

  std::shared_ptr<const LearnerMark> Mark() const;
  void ReturnTo(const LearnerMark& mark);

  LearnerState Save() const;
  // Fills a learner fresh from its constructor.
  absl::Status Load(const LearnerState& state);

  NamedTensors NamedParameters() const;  // Aliases.
  bool has_gradient() const;

  policy::PolicySpec spec;
  LearnerConfig config;
  TrajectoryRules rules;
  std::shared_ptr<policy::RecurrentPolicy> network;
  // Of `network`, in one order throughout.
  std::vector<std::string> names;
  std::vector<at::Tensor> parameters;
  Adam adam;
  LearnerStatistics statistics;
  UpdateStart start;
  // Frozen between publishes.
  double deviation = 1;  // Raw reward per scaled reward.
  // Raw reward per unit of V, by version, of the newest versions: as many as
  // some loss may admit (VersionHistory).
  std::map<int64_t, double> value_units;
  // What `snapshot->scaler` was made of.
  Moments scaler_moments;
  std::shared_ptr<const PolicySnapshot> snapshot;
  LearnerCounters counters;
  // Training weights differ from the published ones.
  bool moved_since_publish = false;
  // Of the last pass and the last step, JSON; "null" before the first.
  std::string pass_options = "null";
  std::string step_options = "null";
  // Both restart with the learner.
  slot::GradientDrift drift;
  HeadCollapseMonitor collapse;
  // Identifies the learner and the weights an evaluation was made with.
  uint64_t identity = 0;
  uint64_t generation = 0;

 private:
  friend class PassRunner;

  // max_version_lag: absent: the configuration's.
  PreparedBatch Prepare(
      absl::Span<const Trajectory> trajectories,
      TrajectoryUse use = TrajectoryUse::kReinforcement,
      std::optional<int64_t> max_version_lag = std::nullopt) const;
  // Throws unless each of `versions`, int64 and contiguous, is among the newest
  // lag + 1.
  void CheckVersions(const at::Tensor& versions, int64_t lag) const;
  // Throws BEHAVIOUR_MISMATCH if what was recorded under the published version
  // is not what it gives; otherwise fills in the report. `now`: float32
  // [B, T, K], log-probs under the training weights.
  void CheckRatios(const PreparedBatch& prepared, at::Tensor now,
                   bool first_pass, const RatioLimits& limits,
                   ForwardBackwardReport* report);
  // Versions whose units are kept.
  int64_t VersionHistory() const;
  // Dropout from here on is a function of this number.
  void SeedDropout(uint64_t stream);
  // The network of the published weights.
  const policy::RecurrentPolicy& Anchor();
  std::shared_ptr<const policy::BehaviourOrigin> RecordedOrigin() const;
  // What the network is evaluated with: the published floors.
  policy::EvaluationOptions Evaluating() const;
  void BeginUpdate();
  // sigma, or 1 without value normalisation.
  double SigmaOf(const ValueNormalizer& values) const;
  // Multiplies the last layers of V and Q.
  void RescaleValueHeads(double factor);
  std::vector<at::Tensor> TakeGradients();
  void PutGradients(const std::vector<at::Tensor>& gradients);
  // Adds `earlier` to the parameters' gradients.
  void AddGradients(const std::vector<at::Tensor>& earlier);
  std::string FirstNonFiniteGradient() const;
  // L2 norm of what is accumulated.
  double GradientNorm() const;
  // Counts a pass or step that was not finite and takes back its update;
  // returns whether it did. Throws TRAINING_DIVERGED when there were too many
  // in a row.
  bool NoteNonFinite(const std::string& what);
  void MakeSnapshot(NamedTensors weights);

  std::shared_ptr<policy::RecurrentPolicy> anchor_;  // Made when needed.
  int64_t anchor_version_ = 0;
  uint64_t evaluations_ = 0;  // With a graph, since this object began.
};

// Never reused, so that neither learners nor weights are mistaken.
uint64_t NextIdentity();

// Throws esper::Error with this reason, whose code the design fixes.
[[noreturn]] void RefuseCall(const std::string& reason,
                             const std::string& field,
                             const std::string& message,
                             const std::string& hint);

}  // namespace esper::ppo
#endif  // ESPER_CORE_PPO_LEARNER_CORE_H_
