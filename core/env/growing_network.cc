#include "core/env/growing_network.h"

#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <numeric>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "core/env/data.h"
#include "core/host/cnn_blueprints.h"
#include "core/host/host.h"
#include "core/slot/topology.h"

namespace esper::env {
namespace {

// Rings of slots per sampled Shapley value: enough for a standard error.
constexpr int kShapleyCycles = 3;

// The first `count` samples, 0 = all, in batches of the task's size.
std::vector<host::ValidationBatch> Batches(const Dataset& samples,
                                           int64_t count, int64_t batch_size) {
  if (count == 0) count = samples.size();
  if (batch_size == 0) batch_size = count;
  std::vector<int64_t> rows(count);
  std::iota(rows.begin(), rows.end(), 0);
  std::vector<host::ValidationBatch> batches;
  for (int64_t first = 0; first < count; first += batch_size) {
    const Batch batch = samples.Get(c10::IntArrayRef(rows).slice(
        first, std::min(batch_size, count - first)));
    batches.push_back({batch.inputs, batch.labels});
  }
  return batches;
}

}  // namespace

void GrowingNetwork::Counter::OnEvent(const slot::SlotEvent& event) noexcept {
  if (std::holds_alternative<slot::SeedGerminated>(event.payload)) {
    ++counts_->germinated;
  } else if (std::holds_alternative<slot::SeedFossilized>(event.payload)) {
    ++counts_->fossilized;
  } else if (std::holds_alternative<slot::SeedPruned>(event.payload)) {
    ++counts_->pruned;
  } else if (const auto* change =
                 std::get_if<slot::SeedStageChanged>(&event.payload)) {
    if (change->from == slot::SeedStage::kTraining &&
        change->to == slot::SeedStage::kBlending) {
      ++counts_->blended;
    }
  }
}

absl::StatusOr<std::unique_ptr<GrowingNetwork>> GrowingNetwork::Create(
    const EpisodeConfig& config) {
  std::unique_ptr<GrowingNetwork> network(new GrowingNetwork(config));
  absl::Status status = network->Build();
  if (!status.ok()) return status;
  return network;
}

absl::Status GrowingNetwork::Build() {
  const Task& task = *config_.task;
  absl::StatusOr<std::shared_ptr<host::Host>> host =
      task.host.create(StreamKey(StreamPurpose::kInit, config_.seed, 0));
  if (!host.ok()) return host.status();
  host_parameters_ = task.host.parameter_count;

  host::GrowableModelOptions model_options;
  model_options.init_profile = config_.init_profile;
  model_options.init_seed = StreamKey(StreamPurpose::kInit, config_.seed, 1);
  absl::StatusOr<std::shared_ptr<host::GrowableModel>> model =
      host::GrowableModel::Create(*std::move(host), task.slot_ids,
                                  model_options);
  if (!model.ok()) return model.status();
  model_ = *std::move(model);
  if (model_->slot_ids() != task.slot_ids) {
    return absl::InvalidArgumentError(absl::StrCat(
        "task ", task.name, ": slots are not in the host's action order"));
  }

  absl::Status status = MakeLifecycle();
  if (!status.ok()) return status;
  trainer_ = std::make_unique<HostTrainer>(*model_, task, config_.seed,
                                           config_.trainer);
  reward_batches_ =
      Batches(*task.reward, config_.trainer.val_samples, task.eval_batch_size);
  return SaveSnapshot();
}

absl::Status GrowingNetwork::MakeLifecycle() {
  slot::SlotLifecycle::Options options;
  options.registry = &host::DefaultBlueprints();
  options.gate_policy =
      slot::GatePolicy(config_.permissive_gates ? slot::GateProfile::kPermissive
                                                : slot::GateProfile::kStrict);
  options.auto_forward = {config_.auto_forward_g1, config_.auto_forward_g2,
                          config_.auto_forward_g3};
  options.events = &counter_;
  absl::StatusOr<slot::SlotLifecycle> lifecycle =
      slot::SlotLifecycle::Create(options);
  if (!lifecycle.ok()) return lifecycle.status();
  lifecycle_.emplace(*std::move(lifecycle));
  return absl::OkStatus();
}

absl::StatusOr<slot::CounterfactualResult> GrowingNetwork::Validate(
    bool last_epoch) const {
  slot::CounterfactualPlan::Options options;
  if (last_epoch) {
    options.shapley_cycles = kShapleyCycles;
    options.shapley_seed = config_.seed;
  }
  // Fossilised seeds are measured only where they still earn.
  options.include_fossilized =
      config_.reward_family == EpisodeConfig::RewardFamily::kContribution &&
      config_.reward.drip_fraction > 0;
  const host::ScopedEvalMode eval(*model_);
  return host::EvaluateCounterfactuals(*model_, reward_batches_, options);
}

double GrowingNetwork::AccuracyOf(
    const std::vector<host::ValidationBatch>& batches, bool with_seeds) const {
  const host::ScopedEvalMode eval(*model_);
  const c10::InferenceMode no_grad;
  std::vector<int64_t> alpha_shape(
      slot::FeatureRank(config_.task->host.topology), 1);
  int64_t correct = 0;
  int64_t labels = 0;
  for (const host::ValidationBatch& batch : batches) {
    host::AlphaOverrides off;
    alpha_shape[0] = batch.inputs.size(0);
    for (const std::string& id : slot_ids()) off[id] = at::zeros(alpha_shape);
    const at::Tensor logits = with_seeds
                                  ? model_->Forward(batch.inputs)
                                  : model_->FusedForward(batch.inputs, off);
    correct += logits.argmax(-1).eq(batch.labels).sum().item<int64_t>();
    labels += batch.labels.numel();
  }
  return 100.0 * correct / labels;
}

double GrowingNetwork::Accuracy(const Dataset& samples) const {
  return AccuracyOf(Batches(samples, 0, config_.task->eval_batch_size),
                    /*with_seeds=*/true);
}

double GrowingNetwork::AccuracyWithoutSeeds(const Dataset& samples) const {
  return AccuracyOf(Batches(samples, 0, config_.task->eval_batch_size),
                    /*with_seeds=*/false);
}

double GrowingNetwork::RewardAccuracyWithoutSeeds() const {
  return AccuracyOf(reward_batches_, /*with_seeds=*/false);
}

absl::Status GrowingNetwork::RecordEpoch(
    const slot::CounterfactualResult& measured, int epoch) {
  for (const auto& slot : model_->slots()) {
    slot->FinalizeGradients();
    const std::optional<slot::SlotReport> report = slot->Report();
    if (!report.has_value()) continue;
    absl::Status status = slot->SyncTelemetry(epoch, config_.max_epochs);
    if (!status.ok()) return status;
    if (!IsLive(*report)) continue;
    slot::InteractionReadings interactions;
    if (const slot::SlotAttribution* found = measured.Find(slot->slot_id())) {
      interactions = {found->interaction_sum, found->boost_received,
                      found->upstream_alpha_sum, found->downstream_alpha_sum};
      status = slot->RecordContribution(found->contribution);
      if (!status.ok()) return status;
    }
    status = slot->RecordInteractions(interactions);
    if (!status.ok()) return status;
    status = slot->RecordAccuracy(measured.val_accuracy);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> GrowingNetwork::Tick() {
  std::vector<std::string> pruned;
  for (const auto& slot : model_->slots()) {
    const slot::LifecycleResult result = lifecycle_->Tick(*slot);
    // A gate that a tick tried and did not pass is no error.
    if (!result.ok() && !result.refused()) return result.status();
    if (slot->TakeAutoPrune().has_value()) pruned.push_back(slot->slot_id());
  }
  return pruned;
}

SlotReports GrowingNetwork::Reports() const {
  SlotReports reports;
  for (const auto& slot : model_->slots()) {
    if (std::optional<slot::SlotReport> report = slot->Report()) {
      reports[slot->slot_id()] = *std::move(report);
    }
  }
  return reports;
}

int64_t GrowingNetwork::SlotParameters(int64_t index) const {
  int64_t count = 0;
  for (const at::Tensor& p : model_->slots()[index]->SeedParameters()) {
    count += p.numel();
  }
  return count;
}

int64_t GrowingNetwork::total_parameters() const {
  return model_->CountParameters().total();
}

std::map<std::string, at::Tensor> GrowingNetwork::GovernedTensors() const {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& item : model_->host().named_parameters()) {
    tensors["host." + item.key()] = item.value();
  }
  for (const auto& item : model_->host().named_buffers()) {
    tensors["host." + item.key()] = item.value();
  }
  for (const auto& slot : model_->slots()) {
    if (slot->stage() != slot::SeedStage::kFossilized) continue;
    int index = 0;
    for (const at::Tensor& parameter : slot->SeedParameters()) {
      tensors[absl::StrCat("seed.", slot->slot_id(), ".", index++)] = parameter;
    }
  }
  return tensors;
}

absl::Status GrowingNetwork::SaveSnapshot() {
  std::map<std::string, at::Tensor> copy;
  for (const auto& [name, tensor] : GovernedTensors()) {
    at::Tensor& saved = copy[name];
    const auto old = snapshot_.find(name);
    if (old != snapshot_.end() && old->second.sizes() == tensor.sizes()) {
      saved = old->second.copy_(tensor.detach());  // Reuses the memory.
    } else {
      saved = tensor.detach().clone();
    }
  }
  snapshot_ = std::move(copy);
  return absl::OkStatus();
}

absl::Status GrowingNetwork::Rollback(PanicReason reason) {
  const std::map<std::string, at::Tensor> now = GovernedTensors();
  for (const auto& [name, saved] : snapshot_) {
    const auto found = now.find(name);
    if (found == now.end() || found->second.sizes() != saved.sizes()) {
      return absl::InternalError(
          absl::StrCat("rollback: the model has no ", name, " as saved"));
    }
  }
  for (const auto& [name, tensor] : now) {
    // A seed fossilised since then keeps the weights it has.
    const auto saved = snapshot_.find(name);
    if (saved != snapshot_.end()) {
      tensor.detach().copy_(saved->second);
    } else if (name.rfind("host.", 0) == 0) {
      return absl::InternalError(
          absl::StrCat("rollback: the snapshot lacks ", name));
    }
  }
  for (const auto& slot : model_->slots()) {
    const slot::LifecycleResult result =
        lifecycle_->Prune(*slot, PanicReasonName(reason), "governor");
    if (!result.ok() && !result.refused()) return result.status();
  }
  trainer_->ResetOptimizers();
  return absl::OkStatus();
}

}  // namespace esper::env
