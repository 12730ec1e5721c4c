#include "core/ppo/learner_core.h"

#include <atomic>
#include <cmath>
#include <utility>

#include "ATen/ops/isfinite.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "core/error.h"
#include "core/ppo/options_json.h"
#include "nlohmann/json.hpp"
#include "spdlog/spdlog.h"

namespace esper::ppo {
namespace {

// Relative distance from the running average that is worth a name.
constexpr double kDriftAlarm = 0.5;

// Never reused, so that neither learners nor weights are mistaken.
uint64_t NextIdentity() {
  static std::atomic<uint64_t> next{1};
  return next.fetch_add(1, std::memory_order_relaxed);
}

bool IsCritic(const std::string& name) {
  return absl::StartsWith(name, "state_value_head.") ||
         absl::StartsWith(name, "q_head.");
}

std::vector<double> Decays(const std::vector<std::string>& names,
                           double critic) {
  std::vector<double> decays;
  for (const std::string& name : names) {
    decays.push_back(IsCritic(name) ? critic : 0.0);
  }
  return decays;
}

// A step of SplitMix64: neighbouring counters give unrelated seeds.
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

std::vector<std::string> NamesOf(const policy::RecurrentPolicy& network) {
  std::vector<std::string> names;
  for (const auto& item : network.named_parameters()) {
    names.push_back(item.key());
  }
  return names;
}

ObservationNormalizer::Options ObservationOptions(const LearnerConfig& config) {
  ObservationNormalizer::Options options;
  options.averaging = Averaging::ExactThenCapped(config.exact_rows);
  if (config.observation_averaging == ObservationAveraging::kUpstream) {
    options.averaging = Averaging::Momentum(0.99);
    options.initial_count = 1e-4;
  }
  return options;
}

ReturnScaler::Options ReturnOptions(const LearnerConfig& config) {
  ReturnScaler::Options options;
  options.averaging = Averaging::ExactThenCapped(config.exact_rows);
  return options;
}

ValueNormalizer::Options ValueOptions(const LearnerConfig& config) {
  ValueNormalizer::Options options;
  options.averaging = config.value_averaging;
  return options;
}

}  // namespace

void RefuseCall(const std::string& reason, const std::string& field,
                const std::string& message, const std::string& hint) {
  ErrorDetail detail;
  detail.reason = reason;
  detail.field = field;
  detail.hint = hint;
  throw Error(CodeOfReason(reason), detail, message);
}

LearnerStatistics::LearnerStatistics(const policy::PolicySpec& spec,
                                     const LearnerConfig& config)
    : observations(spec.observation_width(), ObservationOptions(config)),
      returns(ReturnOptions(config)),
      rewards(/*clip=*/10.0, /*epsilon=*/1e-8),
      values(ValueOptions(config)) {}

LearnerCore::LearnerCore(const policy::PolicySpec& policy_spec,
                         const LearnerConfig& learner_config,
                         uint64_t init_seed)
    : spec(policy_spec),
      config(learner_config),
      rules(policy_spec, learner_config.max_episode_length),
      network(
          std::make_shared<policy::RecurrentPolicy>(policy_spec, init_seed)),
      names(NamesOf(*network)),
      parameters(network->parameters()),
      adam(parameters, Decays(names, config.critic_weight_decay),
           {config.learning_rate, config.beta1, config.beta2,
            config.adam_epsilon}),
      statistics(policy_spec, learner_config),
      start{{}, 0, statistics, {}},
      identity(NextIdentity()),
      generation(NextIdentity()) {
  network->train(config.predictor_dropout);
}

NamedTensors LearnerCore::NamedParameters() const {
  NamedTensors named;
  for (size_t i = 0; i < names.size(); ++i) {
    named.emplace_back(names[i], parameters[i]);
  }
  return named;
}

bool LearnerCore::has_gradient() const {
  for (const at::Tensor& parameter : parameters) {
    if (parameter.grad().defined()) return true;
  }
  return false;
}

PreparedBatch LearnerCore::Prepare(
    absl::Span<const Trajectory> trajectories) const {
  if (trajectories.empty()) {
    RefuseCall("MALFORMED_REQUEST", "trajectories", "There is no episode.",
               "Send at least one.");
  }
  for (size_t row = 0; row < trajectories.size(); ++row) {
    const absl::Status status =
        rules.Validate(trajectories[row], static_cast<int64_t>(row));
    if (!status.ok()) {
      throw Error(status.code(), DetailOf(status).value_or(ErrorDetail()),
                  std::string(status.message()));
    }
  }
  PreparedBatch prepared;
  prepared.batch = PadTrajectories(trajectories, rules.driver());
  const TrajectoryBatch& batch = prepared.batch;
  const at::Tensor versions = batch.policy_versions;
  const int64_t newest = versions.max().item<int64_t>();
  if (newest > counters.version) {
    RefuseCall("UNKNOWN_VERSION", "policy_versions",
               absl::StrCat("A step was recorded under policy version ", newest,
                            "; the newest is ", counters.version, "."),
               "Send the version that GetAction returned.");
  }
  const int64_t oldest = versions.min().item<int64_t>();
  if (oldest < counters.version - config.max_version_lag) {
    RefuseCall("STALE_BEHAVIOUR", "policy_versions",
               absl::StrCat("A step was recorded under policy version ", oldest,
                            "; with the newest ", counters.version,
                            " the oldest admissible is ",
                            counters.version - config.max_version_lag, "."),
               "Record episodes under a newer version.");
  }
  policy::EvaluationInputs& inputs = prepared.inputs;
  inputs.observations = snapshot->scaler.Apply(batch.observations);
  inputs.categorical = batch.categorical;
  inputs.actions = batch.actions;
  inputs.action_masks = batch.action_masks;
  inputs.state = {batch.initial_h, batch.initial_c};
  inputs.valid = batch.valid;
  return prepared;
}

void LearnerCore::SeedDropout(uint64_t stream) {
  if (!config.predictor_dropout) return;
  network->SeedDropout(Mix(config.dropout_seed ^ Mix(stream)));
}

const policy::RecurrentPolicy& LearnerCore::Anchor() {
  if (!moved_since_publish) return *network;
  if (anchor_ == nullptr || anchor_version_ != counters.version) {
    anchor_ = std::make_shared<policy::RecurrentPolicy>(spec, /*init_seed=*/0);
    const absl::Status status = anchor_->LoadStateDict(snapshot->weights);
    TORCH_INTERNAL_ASSERT(status.ok(), status.ToString());
    anchor_version_ = counters.version;
  }
  return *anchor_;
}

std::shared_ptr<const policy::BehaviourOrigin> LearnerCore::RecordedOrigin()
    const {
  auto origin = std::make_shared<policy::BehaviourOrigin>();
  origin->policy_version = counters.version;
  origin->spec_digest = rules.spec_digest();
  origin->floors = snapshot->floors;
  return origin;
}

policy::EvaluationOptions LearnerCore::Evaluating() const {
  policy::EvaluationOptions options;
  options.floors = snapshot->floors;
  return options;
}

double LearnerCore::SigmaOf(const ValueNormalizer& values) const {
  return config.normalize_values ? values.sigma() : 1.0;
}

void LearnerCore::RescaleValueHeads(double factor) {
  if (factor == 1.0) return;
  const c10::NoGradGuard no_grad;
  for (size_t i = 0; i < names.size(); ++i) {
    if (absl::StartsWith(names[i], "state_value_head.8.") ||
        absl::StartsWith(names[i], "q_head.8.")) {
      parameters[i].mul_(factor);
    }
  }
  moved_since_publish = true;
  generation = NextIdentity();
}

std::vector<at::Tensor> LearnerCore::TakeGradients() {
  std::vector<at::Tensor> gradients;
  for (at::Tensor& parameter : parameters) {
    gradients.push_back(parameter.grad());
    parameter.mutable_grad() = at::Tensor();
  }
  return gradients;
}

void LearnerCore::PutGradients(const std::vector<at::Tensor>& gradients) {
  for (size_t i = 0; i < parameters.size(); ++i) {
    parameters[i].mutable_grad() = gradients[i];
  }
}

void LearnerCore::AddGradients(const std::vector<at::Tensor>& earlier) {
  const c10::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (!earlier[i].defined()) continue;
    at::Tensor& gradient = parameters[i].mutable_grad();
    gradient = gradient.defined() ? gradient.add(earlier[i]) : earlier[i];
  }
}

std::string LearnerCore::FirstNonFiniteGradient() const {
  for (size_t i = 0; i < parameters.size(); ++i) {
    const at::Tensor& gradient = parameters[i].grad();
    if (gradient.defined() && !at::isfinite(gradient).all().item<bool>()) {
      return names[i];
    }
  }
  return "";
}

bool LearnerCore::NoteNonFinite(const std::string& what) {
  const bool rolled_back = config.rollback_failed_updates && RollBackUpdate();
  counters.nonfinite_in_a_row += 1;
  spdlog::warn("training {} dropped: {} is not finite ({} in a row)",
               rolled_back ? "update" : "pass or step", what,
               counters.nonfinite_in_a_row);
  if (counters.nonfinite_in_a_row < config.max_nonfinite_in_a_row) {
    return rolled_back;
  }
  RefuseCall(
      "TRAINING_DIVERGED", what,
      absl::StrCat(counters.nonfinite_in_a_row,
                   " passes or steps in a row were not finite, the last in ",
                   what, "; version ", counters.version, " stays published."),
      "Restore a checkpoint, and train with a smaller learning rate.");
}

OptimStepReport LearnerCore::OptimStep(const OptimStepOptions& options) {
  options.Check();
  if (!has_gradient()) {
    RefuseCall("NOT_DIFFERENTIABLE", "gradient",
               "No gradient has been accumulated since the last step.",
               "Call ForwardBackward, or send cotangents, first.");
  }
  OptimStepReport report;
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : parameters) {
    gradients.push_back(parameter.grad());
  }
  report.gradient_norm_before_clip = GlobalNorm(gradients);
  report.nonfinite_tensor = FirstNonFiniteGradient();
  const double previous_rate = adam.options().learning_rate;
  if (report.nonfinite_tensor.empty()) {
    const c10::NoGradGuard no_grad;
    const double clip =
        options.max_grad_norm / (report.gradient_norm_before_clip + 1e-6);
    if (clip < 1.0) {
      for (at::Tensor& gradient : gradients) {
        if (gradient.defined()) gradient = gradient.mul(clip);
      }
    }
    adam.options().learning_rate =
        options.learning_rate.value_or(previous_rate);
    const double change = adam.Step(gradients);
    report.stepped = change >= 0;
    if (report.stepped) {
      report.weights_change_l2 = change;
    } else {
      report.nonfinite_tensor = "update";
    }
  }
  ClearGradients();
  step_options = ToJson(options).dump();
  if (report.stepped) {
    counters.nonfinite_in_a_row = 0;
    counters.optimizer_steps += 1;
    counters.steps_since_publish += 1;
    moved_since_publish = true;
    generation = NextIdentity();
    const double norm = report.gradient_norm_before_clip;
    const double health = GradientHealth(norm);
    if (const auto moved = drift.Update(norm, health)) {
      if (moved->norm > kDriftAlarm) {
        report.anomalies.push_back("gradient_norm_drift");
      }
      if (moved->health > kDriftAlarm) {
        report.anomalies.push_back("gradient_health_drift");
      }
    }
  } else {
    adam.options().learning_rate = previous_rate;
    report.rolled_back = NoteNonFinite(report.nonfinite_tensor);
  }
  report.optimizer_steps = counters.optimizer_steps;
  return report;
}

void LearnerCore::ClearGradients() {
  for (at::Tensor& parameter : parameters) {
    parameter.mutable_grad() = at::Tensor();
  }
}

std::shared_ptr<const PolicySnapshot> LearnerCore::Publish() {
  const double old_unit = SigmaOf(statistics.values) * deviation;
  if (config.scale_rewards &&
      config.reward_scaling == RewardScaling::kReturns) {
    const double fresh = statistics.returns.deviation();
    statistics.values.Rescale(deviation / fresh);
    deviation = fresh;
  }
  const double unit = SigmaOf(statistics.values) * deviation;
  if (config.popart) RescaleValueHeads(old_unit / unit);
  counters.version += 1;
  value_units[counters.version] = unit;
  value_units.erase(
      value_units.begin(),
      value_units.lower_bound(counters.version - config.max_version_lag));
  if (counters.steps_since_publish > 0) counters.updates += 1;
  counters.steps_since_publish = 0;
  scaler_moments = statistics.observations.moments();
  MakeSnapshot(network->StateDict());
  moved_since_publish = false;
  BeginUpdate();
  return snapshot;
}

void LearnerCore::BeginUpdate() {
  start = {adam.slots(), adam.options().learning_rate, statistics, counters};
}

bool LearnerCore::RollBackUpdate() {
  const bool weights_moved = moved_since_publish;
  const bool moved = weights_moved || counters.steps_since_publish > 0 ||
                     counters.transitions != start.counters.transitions ||
                     has_gradient();
  ClearGradients();
  if (weights_moved) {
    const absl::Status status = network->LoadStateDict(snapshot->weights);
    TORCH_INTERNAL_ASSERT(status.ok(), status.ToString());
    moved_since_publish = false;
    generation = NextIdentity();
  }
  adam.slots() = start.slots;
  adam.options().learning_rate = start.learning_rate;
  statistics = start.statistics;
  const int64_t failures = counters.nonfinite_in_a_row;
  counters = start.counters;
  counters.nonfinite_in_a_row = failures;
  return moved;
}

void LearnerCore::MakeSnapshot(NamedTensors weights) {
  auto made = std::make_shared<PolicySnapshot>();
  made->version = counters.version;
  made->weights = std::move(weights);
  made->value_unit = value_units.at(counters.version);
  made->floor_scale = config.FloorScaleAt(counters.updates);
  made->floors = spec.Floors();
  for (double& floor : made->floors.floors) floor *= made->floor_scale;
  if (config.normalize_observations && scaler_moments.count > 0) {
    ObservationNormalizer frozen = statistics.observations;
    TORCH_INTERNAL_ASSERT(frozen.Restore(scaler_moments).ok());
    made->scaler = frozen.Scaler();
  }
  snapshot = std::move(made);
}

}  // namespace esper::ppo
