#include "tests/bench/training_in_process.h"

#include <utility>

#include "ATen/ops/stack.h"
#include "ATen/ops/tensor.h"
#include "core/policy/head_layout.h"
#include "core/tensor/safetensors.h"
#include "tests/core/ppo/rollout.h"

namespace esper::bench {

policy::PolicySpec BenchSpec() {
  policy::NetworkGrowingOptions options;
  options.floor_mode = policy::FloorMode::kUpstream;
  return policy::PolicySpec::NetworkGrowing(options);
}

absl::StatusOr<std::unique_ptr<InProcessTraining>> InProcessTraining::Create(
    int64_t rows, int64_t steps, policy::TrainingPrecision precision) {
  const auto spec = BenchSpec();
  ppo::LearnerConfig config;
  // The twin draws no dropout, and gets the observations as they are.
  config.predictor_dropout = false;
  config.normalize_observations = false;
  config.precision = precision;
  auto learner = ppo::Learner::Create(spec, config, /*init_seed=*/1);
  if (!learner.ok()) return learner.status();
  auto training = std::make_unique<InProcessTraining>();
  training->learner_ = *std::move(learner);
  ppo::RolloutOptions rollout;
  rollout.lengths.assign(rows, steps);
  rollout.contributions = true;
  training->episodes_ =
      ppo::Rollout(spec, *training->learner_->published(), rollout);
  auto evaluation =
      training->learner_->Evaluate(training->episodes_, /*keep_graph=*/false);
  if (!evaluation.ok()) return evaluation.status();
  training->targets_ = RandomTargets((*evaluation)->Numbers(), /*seed=*/7);
  return training;
}

absl::Status InProcessTraining::Step() {
  learner_->ClearGradients();
  auto evaluation = learner_->Evaluate(episodes_, /*keep_graph=*/true);
  if (!evaluation.ok()) return evaluation.status();
  const ClientLoss loss = ComputeClientLoss((*evaluation)->Numbers(), targets_);
  loss_ = loss.loss;
  return learner_->AccumulateGradients(**evaluation, loss.cotangents).status();
}

absl::Status InProcessTraining::Export(const std::string& path) {
  const absl::Status stepped = Step();
  if (!stepped.ok()) return stepped;
  tensor::NamedTensors tensors;
  for (auto& [name, value] : learner_->Weights()) {
    tensors.emplace_back("weights." + name, value);
  }
  for (auto& [name, value] : learner_->Gradients()) {
    tensors.emplace_back("gradients." + name, value);
  }
  // Masks in force, as upstream's buffer stores them.
  const policy::HeadLayout layout(learner_->spec());
  std::vector<at::Tensor> observations, categorical, masks, actions;
  for (const ppo::Trajectory& episode : episodes_) {
    observations.push_back(episode.observations);
    categorical.push_back(episode.categorical);
    actions.push_back(episode.actions);
    masks.push_back(layout.EffectiveMasks(episode.action_masks,
                                          /*conditional=*/{}, episode.actions));
  }
  tensors.emplace_back("observations", at::stack(observations));
  tensors.emplace_back("blueprints", at::stack(categorical));
  tensors.emplace_back("masks", at::stack(masks));
  tensors.emplace_back("actions", at::stack(actions));
  tensors.emplace_back("old_log_probs", targets_.old_log_probs);
  tensors.emplace_back("advantages", targets_.advantages);
  tensors.emplace_back("returns", targets_.returns);
  tensors.emplace_back("contribution_targets", targets_.contributions);
  tensors.emplace_back("loss", at::tensor({loss_}, at::kDouble));
  return tensor::WriteSafetensors(path, tensors);
}

}  // namespace esper::bench
