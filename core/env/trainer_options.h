#ifndef ESPER_CORE_ENV_TRAINER_OPTIONS_H_
#define ESPER_CORE_ENV_TRAINER_OPTIONS_H_

#include <cstdint>

namespace esper::env {

// How an episode trains its host and seeds.
struct TrainerOptions {
  // SGD with momentum; the decay is the host's only.
  double host_lr = 0.01;
  double seed_lr = 0.01;
  double momentum = 0.9;
  double host_weight_decay = 5e-4;
  // Host and each slot are clipped to this gradient norm separately; <= 0 turns
  // clipping off.
  double max_grad_norm = 1.0;

  // What becomes of a fossilised seed. `kJoinHost`: it trains on with the
  // host, with the host's weight decay and clipped with it, and keeps its
  // momentum. `kFrozen`: its parameters stay as they are. `kOwnOptimizer`: it
  // trains on alone, with the optimiser of a live seed, which starts anew.
  enum class Fossil { kJoinHost, kFrozen, kOwnOptimizer };
  Fossil fossil = Fossil::kJoinHost;

  // Gradients are measured on every batch whose index this divides, so on the
  // first batch of every epoch at least. >= 1.
  int gradient_stride = 10;
  // Samples of one epoch and of one validation, the same for every number of
  // environments; 0 = all of the split.
  int64_t samples_per_epoch = 0;
  int64_t val_samples = 0;
};

// What one epoch of training came to.
struct TrainingStats {
  double loss = 0;      // Nats, mean over batches.
  double accuracy = 0;  // Percent of the labels trained on.
  int64_t batches = 0;
};

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_TRAINER_OPTIONS_H_
