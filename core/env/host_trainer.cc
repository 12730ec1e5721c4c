#include "core/env/host_trainer.h"

#include <ATen/ops/cross_entropy_loss.h>
#include <torch/nn/utils/clip_grad.h>

#include <utility>

#include "core/env/data.h"
#include "core/slot/gradient_monitor.h"
#include "core/slot/seed_slot.h"

namespace esper::env {
namespace {

using torch::optim::OptimizerParamState;
using torch::optim::SGD;
using torch::optim::SGDOptions;
using torch::optim::SGDParamState;

std::unique_ptr<SGD> MakeSgd(const std::vector<at::Tensor>& parameters,
                             double lr, double momentum, double decay) {
  return std::make_unique<SGD>(
      parameters, SGDOptions(lr).momentum(momentum).weight_decay(decay));
}

const OptimizerParamState* StateOf(const SGD& sgd,
                                   const at::Tensor& parameter) {
  const auto found = sgd.state().find(parameter.unsafeGetTensorImpl());
  if (found == sgd.state().end()) return nullptr;
  return found->second.get();
}

// Copies what `from` remembers of `parameters` into `to`.
void CarryMomentum(const SGD& from, const std::vector<at::Tensor>& parameters,
                   SGD* to) {
  for (const at::Tensor& parameter : parameters) {
    if (const OptimizerParamState* state = StateOf(from, parameter)) {
      to->state()[parameter.unsafeGetTensorImpl()] = state->clone();
    }
  }
}

}  // namespace

HostTrainer::HostTrainer(host::GrowableModel& model, const Task& task,
                         uint64_t seed, const TrainerOptions& options)
    : model_(model), task_(task), seed_(seed), options_(options) {
  ResetOptimizers();
}

void HostTrainer::ResetOptimizers() {
  host_parameters_ = model_.HostParameters();
  host_sgd_ = MakeSgd(host_parameters_, options_.host_lr, options_.momentum,
                      options_.host_weight_decay);
  slots_.clear();
  fossils_.clear();
}

at::Tensor HostTrainer::Momentum(const at::Tensor& parameter) const {
  const OptimizerParamState* state = StateOf(*host_sgd_, parameter);
  for (const auto& [id, slot] : slots_) {
    if (state == nullptr) state = StateOf(*slot.sgd, parameter);
  }
  if (state == nullptr) return at::Tensor();
  return static_cast<const SGDParamState*>(state)->momentum_buffer();
}

void HostTrainer::SyncOptimizers() {
  for (const auto& slot : model_.slots()) {
    const std::vector<at::Tensor> parameters = slot->SeedParameters();
    if (parameters.empty()) {
      slots_.erase(slot->slot_id());
    } else if (slot->stage() == slot::SeedStage::kFossilized) {
      SyncFossil(*slot, parameters);
    } else {
      SyncLiveSlot(*slot, parameters);
    }
  }
}

void HostTrainer::SyncLiveSlot(const slot::SeedSlot& slot,
                               const std::vector<at::Tensor>& parameters) {
  SlotOptimizer& optimizer = slots_[slot.slot_id()];
  const uint64_t generation = slot.parameter_generation();
  if (optimizer.sgd != nullptr && optimizer.generation == generation) return;
  std::unique_ptr<SGD> sgd =
      MakeSgd(parameters, options_.seed_lr, options_.momentum, /*decay=*/0);
  if (optimizer.sgd != nullptr) {
    CarryMomentum(*optimizer.sgd, parameters, sgd.get());
  }
  optimizer = {generation, parameters, std::move(sgd)};
}

void HostTrainer::SyncFossil(const slot::SeedSlot& slot,
                             const std::vector<at::Tensor>& parameters) {
  const auto known = fossils_.find(slot.slot_id());
  // A fossil is for ever, and its parameters do not change: once is enough.
  if (known != fossils_.end()) return;
  fossils_[slot.slot_id()] = slot.parameter_generation();
  const auto live = slots_.find(slot.slot_id());
  if (options_.fossil == TrainerOptions::Fossil::kOwnOptimizer) {
    slots_[slot.slot_id()] = {
        slot.parameter_generation(), parameters,
        MakeSgd(parameters, options_.seed_lr, options_.momentum, /*decay=*/0)};
    return;
  }
  if (options_.fossil == TrainerOptions::Fossil::kFrozen) {
    for (at::Tensor parameter : parameters) parameter.set_requires_grad(false);
  } else {
    host_sgd_->add_param_group(torch::optim::OptimizerParamGroup(parameters));
    host_parameters_.insert(host_parameters_.end(), parameters.begin(),
                            parameters.end());
    if (live != slots_.end()) {
      CarryMomentum(*live->second.sgd, parameters, host_sgd_.get());
    }
  }
  if (live != slots_.end()) slots_.erase(live);
}

TrainingStats HostTrainer::TrainEpoch(int epoch) {
  SyncOptimizers();
  model_.train();

  std::vector<int64_t> order = EpochOrder(task_.train->size(), seed_, epoch);
  if (options_.samples_per_epoch > 0) order.resize(options_.samples_per_epoch);
  const uint64_t augmentation =
      StreamKey(StreamPurpose::kAugmentation, seed_, epoch);
  const int64_t batch_size = task_.batch_size;

  TrainingStats stats;
  stats.batches = static_cast<int64_t>(order.size()) / batch_size;
  int64_t correct = 0;
  int64_t labels = 0;
  for (int64_t i = 0; i < stats.batches; ++i) {
    const Batch batch = task_.train->GetForTraining(
        c10::IntArrayRef(order).slice(i * batch_size, batch_size),
        augmentation);
    // Gradients go, so that a parameter that is frozen now has none.
    model_.zero_grad(/*set_to_none=*/true);
    // One row for each label: an image, or a token of a sequence.
    const at::Tensor logits = model_.Forward(batch.inputs).flatten(0, -2);
    const at::Tensor target = batch.labels.flatten();
    const at::Tensor loss = at::cross_entropy_loss(logits, target);
    loss.backward();
    if (i % options_.gradient_stride == 0) CaptureGradients();
    ClipAndStep();
    stats.loss += loss.item<double>();
    correct += logits.detach().argmax(1).eq(target).sum().item<int64_t>();
    labels += target.numel();
  }
  stats.loss /= stats.batches;
  stats.accuracy = 100.0 * correct / labels;
  return stats;
}

void HostTrainer::CaptureGradients() {
  const slot::GradientSample host =
      slot::SampleGradients(model_.HostParameters());
  for (const auto& slot : model_.slots()) slot->CaptureGradients(host);
}

void HostTrainer::ClipAndStep() {
  if (options_.max_grad_norm > 0) {
    torch::nn::utils::clip_grad_norm_(host_parameters_, options_.max_grad_norm);
    for (auto& [id, slot] : slots_) {
      torch::nn::utils::clip_grad_norm_(slot.parameters,
                                        options_.max_grad_norm);
    }
  }
  host_sgd_->step();
  for (auto& [id, slot] : slots_) slot.sgd->step();
}

}  // namespace esper::env
