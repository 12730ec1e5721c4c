#ifndef ESPER_CORE_ENV_GROWING_NETWORK_H_
#define ESPER_CORE_ENV_GROWING_NETWORK_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/env/dataset.h"
#include "core/env/episode_config.h"
#include "core/env/governor.h"
#include "core/env/host_trainer.h"
#include "core/env/report_views.h"
#include "core/host/counterfactual_eval.h"
#include "core/host/growable_model.h"
#include "core/slot/counterfactual.h"
#include "core/slot/events.h"
#include "core/slot/seed_slot.h"
#include "core/slot/slot_lifecycle.h"

namespace esper::env {

// How many seeds went which way in an episode, counted from slot events.
struct SeedCounts {
  int germinated = 0;
  int blended = 0;  // Entered BLENDING from TRAINING.
  int fossilized = 0;
  int pruned = 0;  // By the policy or by the governor.
};

// The network of one episode: host, slots, their lifecycle, and what trains and
// measures them. Its first weights are a function of (task, seed).
//
// Thread safety: none.
class GrowingNetwork : public GovernedHost {
 public:
  // `config` must be valid and outlive the network. INVALID_ARGUMENT if the
  // task's host and slots do not fit each other.
  static absl::StatusOr<std::unique_ptr<GrowingNetwork>> Create(
      const EpisodeConfig& config);

  TrainingStats TrainEpoch(int epoch) { return trainer_->TrainEpoch(epoch); }

  // Measures the reward split: the network as it is and each blended seed's
  // contribution. Writes nothing to the slots. On an episode's `last_epoch`
  // Shapley values are sampled as well where there are too many seeds for
  // exact ones.
  absl::StatusOr<slot::CounterfactualResult> Validate(
      bool last_epoch = false) const;

  // Accuracy in percent, as the network is, or with every slot at alpha 0.
  double Accuracy(const Dataset& samples) const;
  double AccuracyWithoutSeeds(const Dataset& samples) const;
  // The latter of the samples that make rewards.
  double RewardAccuracyWithoutSeeds() const;

  // What validation found goes to the slots: contributions, interactions,
  // accuracy; then the epoch's gradients are read and telemetry stamped.
  absl::Status RecordEpoch(const slot::CounterfactualResult& measured,
                           int epoch);

  // Ages every slot by one epoch. Returns the ids of those whose seed was
  // removed without the policy asking.
  absl::StatusOr<std::vector<std::string>> Tick();

  SlotReports Reports() const;
  slot::SeedSlot& slot(int64_t index) { return *model_->slots()[index]; }
  const slot::SlotLifecycle& lifecycle() const { return *lifecycle_; }
  const std::vector<std::string>& slot_ids() const {
    return model_->slot_ids();
  }

  // Elements of a slot's seed and gate, frozen ones included; 0 if empty.
  int64_t SlotParameters(int64_t index) const;
  int64_t host_parameters() const { return host_parameters_; }
  int64_t total_parameters() const;
  int64_t live_seeds() const { return model_->CountSeeds(); }
  const SeedCounts& counts() const { return counts_; }
  bool AnyFossil() const {
    return model_->CountSeeds() > model_->CountActiveSeeds();
  }
  HostTrainer& trainer() { return *trainer_; }

  // Tensors that a snapshot covers, by name: the host's parameters and buffers,
  // and the parameters of fossilised seeds. Handles, not copies.
  std::map<std::string, at::Tensor> GovernedTensors() const;

  absl::Status SaveSnapshot() override;
  absl::Status Rollback(PanicReason reason) override;

 private:
  // Counts what the slots tell.
  class Counter : public slot::EventSink {
   public:
    explicit Counter(SeedCounts* counts) : counts_(counts) {}
    void OnEvent(const slot::SlotEvent& event) noexcept override;

   private:
    SeedCounts* const counts_;
  };

  explicit GrowingNetwork(const EpisodeConfig& config)
      : config_(config), counter_(&counts_) {}

  absl::Status Build();
  absl::Status MakeLifecycle();

  // Percent of labels that the network gets right, with seeds as they are or
  // at alpha 0.
  double AccuracyOf(const std::vector<host::ValidationBatch>& batches,
                    bool with_seeds) const;

  const EpisodeConfig& config_;
  SeedCounts counts_;
  Counter counter_;
  std::shared_ptr<host::GrowableModel> model_;
  std::optional<slot::SlotLifecycle> lifecycle_;
  std::unique_ptr<HostTrainer> trainer_;
  // The samples that make rewards, as many as the options say.
  std::vector<host::ValidationBatch> reward_batches_;
  int64_t host_parameters_ = 0;
  std::map<std::string, at::Tensor> snapshot_;
};

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_GROWING_NETWORK_H_
