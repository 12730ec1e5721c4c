#ifndef ESPER_CORE_ENV_HOST_TRAINER_H_
#define ESPER_CORE_ENV_HOST_TRAINER_H_

#include <ATen/core/Tensor.h>
#include <torch/optim/sgd.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/env/task.h"
#include "core/env/trainer_options.h"
#include "core/host/growable_model.h"

namespace esper::slot {
class SeedSlot;
}  // namespace esper::slot

namespace esper::env {

// Trains a host and the seeds in its slots, an epoch at a time: one SGD for the
// host, one for each slot with a live seed. Slots are looked at when an epoch
// begins: an optimiser that was made for another set of parameters is rebuilt,
// with the momentum of the tensors that stayed.
//
// The samples of an epoch, and how they are augmented, are a function of (seed,
// epoch) alone. No generator is drawn from.
//
// Thread safety: none.
class HostTrainer {
 public:
  // Trains on the task's training split; `model` and `task` must outlive the
  // trainer. Batch size and options are as EpisodeConfig::Validate demands.
  HostTrainer(host::GrowableModel& model, const Task& task, uint64_t seed,
              const TrainerOptions& options);

  // One pass over the samples of `epoch` (1-based), in whole batches; the rest
  // is dropped. Leaves the model in training mode, and the gradient readings of
  // the last measured batch pending in the slots.
  TrainingStats TrainEpoch(int epoch);

  // Matches the optimisers to what is in the slots now. TrainEpoch does it.
  void SyncOptimizers();

  // Forgets all momentum, as after a rollback.
  void ResetOptimizers();

  // Momentum of a parameter in whichever optimiser it is; undefined if it has
  // none. Aliases the optimiser's own.
  at::Tensor Momentum(const at::Tensor& parameter) const;

 private:
  struct SlotOptimizer {
    uint64_t generation = 0;  // SeedSlot::parameter_generation it was made for.
    std::vector<at::Tensor> parameters;
    std::unique_ptr<torch::optim::SGD> sgd;
  };

  void SyncLiveSlot(const slot::SeedSlot& slot,
                    const std::vector<at::Tensor>& parameters);
  void SyncFossil(const slot::SeedSlot& slot,
                  const std::vector<at::Tensor>& parameters);
  void CaptureGradients();
  void ClipAndStep();

  host::GrowableModel& model_;
  const Task& task_;
  const uint64_t seed_;
  const TrainerOptions options_;

  std::unique_ptr<torch::optim::SGD> host_sgd_;
  // What host_sgd_ trains: the host, then fossilised seeds.
  std::vector<at::Tensor> host_parameters_;
  std::map<std::string, SlotOptimizer> slots_;  // By slot id; live seeds.
  // Generation of each fossil that was taken care of, by slot id.
  std::map<std::string, uint64_t> fossils_;
};

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_HOST_TRAINER_H_
