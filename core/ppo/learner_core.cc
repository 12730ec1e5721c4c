#include "core/ppo/learner_core.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "core/error.h"
#include "core/tensor/checks.h"

namespace esper::ppo {
namespace {

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

ReturnScaler::Options ScalerOptions(const LearnerConfig& config) {
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

uint64_t NextIdentity() {
  static std::atomic<uint64_t> next{1};
  return next.fetch_add(1, std::memory_order_relaxed);
}

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
      returns(ScalerOptions(config)),
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
  network->SetPrecision(config.precision);
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
    absl::Span<const Trajectory> trajectories, TrajectoryUse use,
    std::optional<int64_t> max_version_lag) const {
  if (trajectories.empty()) {
    RefuseCall("MALFORMED_REQUEST", "trajectories", "There is no episode.",
               "Send at least one.");
  }
  for (size_t row = 0; row < trajectories.size(); ++row) {
    const absl::Status status =
        rules.Validate(trajectories[row], static_cast<int64_t>(row), use);
    if (!status.ok()) {
      throw Error(status.code(), DetailOf(status).value_or(ErrorDetail()),
                  std::string(status.message()));
    }
  }
  PreparedBatch prepared;
  prepared.batch = PadTrajectories(trajectories, rules.driver(), use);
  const TrajectoryBatch& batch = prepared.batch;
  if (use == TrajectoryUse::kReinforcement) {
    CheckVersions(batch.policy_versions.contiguous(),
                  max_version_lag.value_or(config.max_version_lag));
  }
  policy::EvaluationInputs& inputs = prepared.inputs;
  inputs.observations = snapshot->scaler.Apply(batch.observations);
  inputs.categorical = batch.categorical;
  inputs.actions = batch.actions;
  inputs.continuous_actions = batch.continuous_actions;
  inputs.action_masks = batch.action_masks;
  inputs.state = {batch.initial_h, batch.initial_c};
  inputs.valid = batch.valid;
  return prepared;
}

int64_t LearnerCore::VersionHistory() const {
  return std::max(config.max_version_lag,
                  ImportanceSamplingOptions::kLargestVersionLag) +
         1;
}

void LearnerCore::CheckVersions(const at::Tensor& versions, int64_t lag) const {
  const int64_t* data = versions.const_data_ptr<int64_t>();
  auto first = value_units.end();
  for (int64_t i = 0; i <= lag && first != value_units.begin(); ++i) --first;
  const int64_t oldest = first->first;
  for (const int64_t version :
       std::set<int64_t>(data, data + versions.numel())) {
    if (version >= oldest && value_units.count(version) == 1) continue;
    const std::string recorded = absl::StrCat(
        "A step was recorded under policy version ", version, "; ");
    if (version < oldest) {
      RefuseCall("STALE_BEHAVIOUR", "policy_versions",
                 absl::StrCat(recorded, "with the newest ", counters.version,
                              " the oldest admissible is ", oldest, "."),
                 "Record episodes under a newer version.");
    }
    RefuseCall(
        "UNKNOWN_VERSION", "policy_versions",
        version > counters.version
            ? absl::StrCat(recorded, "the newest is ", counters.version, ".")
            : absl::StrCat(recorded,
                           "it was given up when an older checkpoint "
                           "was restored."),
        "Send the version that GetAction returned, and drop episodes "
        "from before a restore.");
  }
}

void LearnerCore::SeedDropout(uint64_t stream) {
  if (!config.predictor_dropout) return;
  network->SeedDropout(Mix(config.dropout_seed ^ Mix(stream)));
}

const policy::RecurrentPolicy& LearnerCore::Anchor() {
  if (!moved_since_publish) return *network;
  if (anchor_ == nullptr || anchor_version_ != counters.version) {
    anchor_ = std::make_shared<policy::RecurrentPolicy>(spec, /*init_seed=*/0);
    anchor_->SetPrecision(config.precision);
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
    if (gradient.defined() && tensor::FirstNonFinite(gradient) >= 0) {
      return names[i];
    }
  }
  return "";
}

}  // namespace esper::ppo
