#ifndef ESPER_CORE_HOST_GROWABLE_MODEL_H_
#define ESPER_CORE_HOST_GROWABLE_MODEL_H_

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/host/host.h"
#include "core/slot/blueprint.h"
#include "core/slot/forward_plan.h"
#include "core/slot/seed_slot.h"

namespace esper::host {

// Alpha per sample, by slot id: floating [N, 1, 1, 1] (cnn) or [N, 1, 1]
// (transformer), in [0, 1]; row i holds for row i of the network's input.
using AlphaOverrides = std::map<std::string, at::Tensor>;

// How many parameter elements a network has. Tied tensors count once.
// "Owned" counts every element, "trainable" those that require grad now: a seed
// that is being blended out owns its parameters and trains none.
struct ParameterCounts {
  int64_t host_owned = 0;
  int64_t host_trainable = 0;
  int64_t seeds_owned = 0;  // Seeds in slots, gate networks included.
  int64_t seeds_trainable = 0;

  int64_t total() const { return host_owned + seeds_owned; }
};

struct GrowableModelOptions {
  slot::InitProfile init_profile = slot::InitProfile::kLive;
  slot::SteGuard ste_guard = slot::SteGuard::kWarn;
  // Seeds start from this, their slot's id and the number of germinations in
  // it alone.
  uint64_t init_seed = 0;
};

// A host with slots at some of its points: the network that grows.
//
// Slots are submodules seed_slots.<id>, the host is the submodule host.
//
// Thread safety: in evaluation mode the forward functions may run on many
// threads at once, also while the lifecycle of a slot moves on: each forward
// sees every slot as it was when the forward began. In training mode one
// thread.
class GrowableModel : public torch::nn::Module {
 public:
  // Makes a slot for every id, with channels, topology, device and dtype of the
  // host. Slots are kept in the host's action order, whatever the order of
  // `slot_ids`; activations meet them in its execution order.
  // INVALID_ARGUMENT for a slot that the host does not offer or an id given
  // twice. No slot at all is a plain host.
  static absl::StatusOr<std::shared_ptr<GrowableModel>> Create(
      std::shared_ptr<Host> host, const std::vector<std::string>& slot_ids,
      const GrowableModelOptions& options = {});

  ~GrowableModel() override;

  Host& host() const { return *host_; }
  const std::vector<std::shared_ptr<slot::SeedSlot>>& slots() const {
    return slots_;  // In action order.
  }
  const std::vector<std::string>& slot_ids() const { return slot_ids_; }
  // Slots as activations meet them, each with its position in the host.
  const std::vector<std::pair<int, const slot::SeedSlot*>>& route() const {
    return route_;
  }

  // NOT_FOUND that lists the slots there are.
  absl::StatusOr<slot::SeedSlot*> FindSlot(const std::string& slot_id) const;

  // x: float [B, in_channels, H, W] (cnn) or int64 [B, T] (transformer).
  // Returns logits, float [B, classes] or [B, T, V]; grad to host and seeds.
  // Sees the ForceAlpha scopes that the calling thread has open, and throws
  // what they refuse (core/slot/force_alpha.h).
  at::Tensor Forward(const at::Tensor& x) const;

  // Many alpha settings in one pass: `x` holds them stacked along the batch,
  // N = K * B rows, and the result has as many. Slots without an entry use
  // their own alpha. Nothing is written to any slot.
  // Throws InvalidArgumentError (UNKNOWN_SLOT, BAD_ALPHA_OVERRIDE) for a slot
  // that the model does not have, or an override that is not floating, finite
  // and in [0, 1]; ShapeError for one of another shape.
  at::Tensor FusedForward(const at::Tensor& x,
                          const AlphaOverrides& overrides) const;

  // Parameter views, in a fixed order; handles, not copies. A slot's are its
  // seed's and its gate network's, empty for an empty slot.
  std::vector<at::Tensor> HostParameters() const;
  absl::StatusOr<std::vector<at::Tensor>> SlotParameters(
      const std::string& slot_id) const;
  std::vector<at::Tensor> AllSlotParameters() const;

  ParameterCounts CountParameters() const;
  // Seeds in slots that are not fossilised (cooling slots hold none), and with
  // the fossilised ones.
  int64_t CountActiveSeeds() const;
  int64_t CountSeeds() const;

 private:
  GrowableModel(std::shared_ptr<Host> host,
                std::vector<std::shared_ptr<slot::SeedSlot>> slots);

  struct Stop;

  // The slots at which a forward stops, as they are now and as the overrides
  // and the ForceAlpha scopes of the calling thread make them look. Between
  // stops the host runs as it would without slots.
  std::vector<Stop> Stops(const AlphaOverrides* overrides) const;
  at::Tensor ForwardWith(const at::Tensor& x,
                         const AlphaOverrides* overrides) const;
  void CheckOverrides(const at::Tensor& x,
                      const AlphaOverrides& overrides) const;

  const std::shared_ptr<Host> host_;
  const std::vector<std::shared_ptr<slot::SeedSlot>> slots_;
  std::vector<std::string> slot_ids_;
  std::vector<std::pair<int, const slot::SeedSlot*>> route_;
};

// Puts a model into evaluation mode, and back into the mode it was in.
class ScopedEvalMode {
 public:
  explicit ScopedEvalMode(torch::nn::Module& module);
  ~ScopedEvalMode();

  ScopedEvalMode(const ScopedEvalMode&) = delete;
  ScopedEvalMode& operator=(const ScopedEvalMode&) = delete;

 private:
  torch::nn::Module& module_;
  const bool was_training_;
};

}  // namespace esper::host
#endif  // ESPER_CORE_HOST_GROWABLE_MODEL_H_
