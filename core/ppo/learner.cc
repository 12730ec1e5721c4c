#include "core/ppo/learner.h"

#include <utility>

#include "ATen/ops/zeros_like.h"
#include "core/error.h"
#include "core/ppo/learner_core.h"

namespace esper::ppo {
namespace {

// Runs `body`, a caller's mistake becoming a status.
template <typename T, typename Body>
absl::StatusOr<T> Guard(Body body) {
  try {
    return body();
  } catch (const Error& error) {
    return ToStatus(error);
  }
}

absl::StatusOr<std::unique_ptr<LearnerCore>> MakeCore(
    const policy::PolicySpec& spec, const LearnerConfig& config,
    uint64_t init_seed) {
  const absl::Status status = spec.Validate();
  if (!status.ok()) return status;
  return Guard<std::unique_ptr<LearnerCore>>([&] {
    config.Check();
    return std::make_unique<LearnerCore>(spec, config, init_seed);
  });
}

}  // namespace

Learner::Learner(std::unique_ptr<LearnerCore> core)
    : core_(std::move(core)), published_(core_->snapshot) {}
Learner::~Learner() = default;

absl::StatusOr<std::unique_ptr<Learner>> Learner::Create(
    const policy::PolicySpec& spec, const LearnerConfig& config,
    uint64_t init_seed) {
  auto core = MakeCore(spec, config, init_seed);
  if (!core.ok()) return core.status();
  (*core)->Publish(/*version=*/1);
  return std::unique_ptr<Learner>(new Learner(*std::move(core)));
}

absl::StatusOr<std::unique_ptr<Learner>> Learner::CreateFromWeights(
    const policy::PolicySpec& spec, const LearnerConfig& config,
    const NamedTensors& weights) {
  auto core = MakeCore(spec, config, /*init_seed=*/0);
  if (!core.ok()) return core.status();
  const absl::Status status = (*core)->network->LoadStateDict(weights);
  if (!status.ok()) return status;
  (*core)->Publish(/*version=*/1);
  return std::unique_ptr<Learner>(new Learner(*std::move(core)));
}

absl::StatusOr<std::unique_ptr<Learner>> Learner::CreateFromState(
    const policy::PolicySpec& spec, const LearnerConfig& config,
    const LearnerState& state) {
  auto core = MakeCore(spec, config, /*init_seed=*/0);
  if (!core.ok()) return core.status();
  const absl::Status status = (*core)->Load(state);
  if (!status.ok()) return status;
  return std::unique_ptr<Learner>(new Learner(*std::move(core)));
}

absl::StatusOr<ForwardBackwardReport> Learner::ForwardBackward(
    absl::Span<const Trajectory> trajectories, const PassOptions& options) {
  return Guard<ForwardBackwardReport>(
      [&] { return core_->ForwardBackward(trajectories, options); });
}

absl::StatusOr<OptimStepReport> Learner::OptimStep(
    const OptimStepOptions& options) {
  return Guard<OptimStepReport>([&] { return core_->OptimStep(options); });
}

std::shared_ptr<const PolicySnapshot> Learner::Publish() {
  return Publish(core_->counters.version + 1);
}

std::shared_ptr<const PolicySnapshot> Learner::Publish(int64_t version) {
  std::shared_ptr<const PolicySnapshot> snapshot = core_->Publish(version);
  absl::MutexLock lock(&mu_);
  published_ = snapshot;
  return snapshot;
}

void Learner::StartHistory(int64_t version) {
  core_->StartHistory(version);
  absl::MutexLock lock(&mu_);
  published_ = core_->snapshot;
}

int64_t Learner::DropUnpublished() {
  const int64_t steps = core_->counters.steps_since_publish;
  core_->RollBackUpdate();
  return steps;
}

std::shared_ptr<const PolicySnapshot> Learner::published() const {
  absl::MutexLock lock(&mu_);
  return published_;
}

absl::StatusOr<std::unique_ptr<OpenEvaluation>> Learner::Evaluate(
    absl::Span<const Trajectory> trajectories, bool keep_graph) {
  return Guard<std::unique_ptr<OpenEvaluation>>(
      [&] { return core_->Evaluate(trajectories, keep_graph); });
}

absl::StatusOr<double> Learner::AccumulateGradients(
    OpenEvaluation& evaluation, const Cotangents& cotangents) {
  return Guard<double>(
      [&] { return core_->AccumulateGradients(evaluation, cotangents); });
}

void Learner::ClearGradients() { core_->ClearGradients(); }

std::shared_ptr<const LearnerMark> Learner::Mark() const {
  return core_->Mark();
}

void Learner::ReturnTo(const LearnerMark& mark) {
  core_->ReturnTo(mark);
  absl::MutexLock lock(&mu_);
  published_ = core_->snapshot;
}

LearnerState Learner::Save() const { return core_->Save(); }

absl::Status Learner::Restore(const LearnerState& state) {
  // Into a learner of its own first, so that a bad state changes nothing.
  auto core = MakeCore(core_->spec, core_->config, /*init_seed=*/0);
  if (!core.ok()) return core.status();
  const absl::Status status = (*core)->Load(state);
  if (!status.ok()) return status;
  (*core)->identity = core_->identity;
  core_ = *std::move(core);
  absl::MutexLock lock(&mu_);
  published_ = core_->snapshot;
  return absl::OkStatus();
}

const policy::PolicySpec& Learner::spec() const { return core_->spec; }
const LearnerConfig& Learner::config() const { return core_->config; }
int64_t Learner::policy_version() const { return core_->counters.version; }
int64_t Learner::optimizer_steps() const {
  return core_->counters.optimizer_steps;
}
int64_t Learner::unpublished_steps() const {
  return core_->counters.steps_since_publish;
}
int64_t Learner::updates() const { return core_->counters.updates; }
int64_t Learner::transitions_trained() const {
  return core_->counters.transitions;
}
bool Learner::has_gradient() const { return core_->has_gradient(); }
double Learner::value_sigma() const { return core_->statistics.values.sigma(); }

NamedTensors Learner::Weights() const { return core_->network->StateDict(); }

NamedTensors Learner::Gradients() const {
  NamedTensors gradients;
  for (const auto& [name, parameter] : core_->NamedParameters()) {
    const at::Tensor& gradient = parameter.grad();
    gradients.emplace_back(name, gradient.defined()
                                     ? gradient.clone()
                                     : at::zeros_like(parameter.detach()));
  }
  return gradients;
}

}  // namespace esper::ppo
