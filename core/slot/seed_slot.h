#ifndef ESPER_CORE_SLOT_SEED_SLOT_H_
#define ESPER_CORE_SLOT_SEED_SLOT_H_

#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "core/slot/blueprint.h"
#include "core/slot/forced_alpha.h"
#include "core/slot/forward_plan.h"
#include "core/slot/gradient_monitor.h"
#include "core/slot/report.h"
#include "core/slot/seed.h"
#include "core/slot/topology.h"
#include "torch/nn/module.h"

namespace esper::slot {

// What validation measured for a slot besides its own contribution, in
// accuracy points and alpha. All zero where not measured.
struct InteractionReadings {
  double interaction_sum = 0;
  double boost_received = 0;
  double upstream_alpha_sum = 0;
  double downstream_alpha_sum = 0;
};

// Elements of a set of parameters: all, and those that require grad.
struct ElementCounts {
  int64_t owned = 0;
  int64_t trainable = 0;
};

struct SlotCheckpoint;

// A place in the host that can hold one seed. A thin shell: it runs the seed,
// takes measurements in, and reports. SlotLifecycle alone, or the
// restore of a checkpoint, changes what it holds.
//
// Thread safety: forward loads one immutable plan and touches nothing else of
// the slot, so any number of forwards may run beside one lifecycle call; a
// seed pruned meanwhile lives until they return. A call that starts or ends a
// ramp down changes what the seed trains: it alone waits for the forwards that
// are building a graph through that seed, so that each of them sees one state.
// The other methods take the slot's mutex. Module methods that change
// parameters or mode (train, to, zero_grad) and backward passes are the
// owner's, one thread at a time, and not beside a lifecycle call.
//
// Alpha lives in two places. A plan's own tensor is never written again: an
// autograd graph may have saved it, and a forward in flight may be reading it.
// A captured graph cannot change tensors between replays, so forwards under
// capture read one buffer per slot instead, which every change of alpha
// rewrites in place, on the current stream of the thread that makes the change.
// Replays on another stream must wait for that one.
class SeedSlot : public torch::nn::Module {
 public:
  struct Options {
    std::string slot_id;   // "r0c1".
    int64_t channels = 0;  // C of the features, > 0.
    Topology topology = Topology::kCnn;
    at::Device device = at::kCPU;
    at::ScalarType dtype = at::kFloat;  // Of features and seed parameters.
    InitProfile init_profile = InitProfile::kLive;
    // Seeds start from this and the count of germinations alone; no global
    // generator is touched.
    uint64_t init_seed = 0;
    int64_t host_param_count = 0;  // Trainable elements; for reports only.
    SteGuard ste_guard = SteGuard::kWarn;
  };

  // INVALID_ARGUMENT for a malformed id, channels <= 0 or a dtype that is not
  // floating.
  static absl::StatusOr<std::shared_ptr<SeedSlot>> Create(
      const Options& options);

  // host: floating [B, C, H, W] (cnn) or [B, T, C] (transformer).
  // Returns the same shape, dtype and device; `host` itself if no active seed
  // is here. Grad to host and seed parameters. Errors: see RunForwardPlan and
  // Resolve.
  at::Tensor forward(const at::Tensor& host) const;

  // The same under another blend weight, for this call only.
  at::Tensor forward(const at::Tensor& host, const SlotView& view) const;

  // `view` with the alpha that a ForceAlpha scope of this thread forces on the
  // slot, if any; forwards with the result need no scope, so other threads can
  // run them. forward does this by itself. Throws Error (RECORDING,
  // TRAINING_MODE, OVERRIDE_CONFLICT) as core/slot/force_alpha.h says.
  SlotView Resolve(const SlotView& view) const;

  // Who may force alpha; for core/slot/force_alpha.h.
  const std::shared_ptr<ForceAlphaClaim>& force_alpha_claim() const {
    return force_alpha_claim_;
  }

  // As torch::nn::Module::to; the slot's features have the new device and dtype
  // from now on. Forgets a gradient sample that waits to be read, and makes
  // captured graphs stale. InvalidArgumentError (BAD_SLOT_DTYPE), with nothing
  // changed, for a dtype that is not floating.
  void to(at::Device device, at::ScalarType dtype,
          bool non_blocking = false) override;
  void to(at::ScalarType dtype, bool non_blocking = false) override;
  void to(at::Device device, bool non_blocking = false) override;

  // The plan that forward would use now; never null.
  std::shared_ptr<const ForwardPlan> plan() const;

  const Options& options() const { return options_; }
  const std::string& slot_id() const { return options_.slot_id; }

  // The report; absent if the slot is empty.
  std::optional<SlotReport> Report() const ABSL_LOCKS_EXCLUDED(mu_);
  // DORMANT if empty.
  SeedStage stage() const ABSL_LOCKS_EXCLUDED(mu_);
  double alpha() const ABSL_LOCKS_EXCLUDED(mu_);  // 0 if empty.
  bool empty() const ABSL_LOCKS_EXCLUDED(mu_);    // Cool-down is not empty.

  // Parameters of seed and gate, frozen ones included; empty without a seed.
  std::vector<at::Tensor> SeedParameters() const ABSL_LOCKS_EXCLUDED(mu_);
  // How many elements they have. Safe beside lifecycle calls.
  ElementCounts CountElements() const ABSL_LOCKS_EXCLUDED(mu_);
  // Changes whenever the set of parameters does. An optimiser made at another
  // generation must be rebuilt before it steps.
  uint64_t parameter_generation() const {
    return parameter_generation_.load(std::memory_order_acquire);
  }

  // --- Measurements. FAILED_PRECONDITION if the slot is empty. ---

  // Validation accuracy of an epoch, percent. FAILED_PRECONDITION while
  // cooling down; INVALID_ARGUMENT if not finite.
  absl::Status RecordAccuracy(double accuracy) ABSL_LOCKS_EXCLUDED(mu_);
  // Accuracy with the seed minus without it, points. Same errors.
  absl::Status RecordContribution(double value) ABSL_LOCKS_EXCLUDED(mu_);
  // Replaces the interaction fields. INVALID_ARGUMENT if not finite.
  absl::Status RecordInteractions(const InteractionReadings& readings)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status RecordGradients(const GradientReading& reading)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Takes a gradient sample after backward and before clipping, replacing the
  // one of an earlier batch; `host` is shared by all slots. No device-to-host
  // copy. False, without effect, unless the seed is TRAINING, BLENDING or
  // HOLDING (its health is judged there) and not frozen by a ramp down.
  bool CaptureGradients(const GradientSample& host) ABSL_LOCKS_EXCLUDED(mu_);
  // At the end of an epoch: reads the pending sample, if any, with one copy
  // and records it. False if nothing was pending.
  bool FinalizeGradients() ABSL_LOCKS_EXCLUDED(mu_);

  // Sets the clock that telemetry shows. FAILED_PRECONDITION if empty.
  absl::Status SyncTelemetry(int64_t epoch, int64_t max_epochs)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Whether a removal that no policy asked for happened since the last call;
  // reading clears it. Holds the reason.
  std::optional<std::string> TakeAutoPrune() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  friend class SlotLifecycle;
  friend class PreparedSlot;  // core/slot/slot_checkpoint_restore.h
  friend SlotCheckpoint SaveSlot(const SeedSlot& slot);

  explicit SeedSlot(const Options& options);

  // Puts `seed` in place: registers its networks as submodules "seed" and
  // "gate", and publishes its plan. Nothing of it can fail.
  void CommitLocked(std::optional<Seed> seed)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PublishLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Moves to `options_`: alpha and its buffer, and what else is kept there.
  void Rehouse(at::Device device, at::ScalarType dtype)
      ABSL_LOCKS_EXCLUDED(mu_);
  void CheckDtype(at::ScalarType dtype) const;

  Options options_;
  const std::shared_ptr<ForceAlphaClaim> force_alpha_claim_;
  at::Tensor alpha_buffer_;  // Its value changes, under `mu_`.
  std::atomic<uint64_t> parameter_generation_{0};
  std::shared_ptr<const ForwardPlan> plan_;  // By std::atomic_load / _store.

  mutable absl::Mutex mu_;
  std::optional<Seed> seed_ ABSL_GUARDED_BY(mu_);
  GradientMonitor monitor_ ABSL_GUARDED_BY(mu_);
  uint64_t germinations_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t sequence_ ABSL_GUARDED_BY(mu_) = 0;  // Of gate decisions.
  std::optional<std::string> auto_prune_ ABSL_GUARDED_BY(mu_);
};

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_SEED_SLOT_H_
