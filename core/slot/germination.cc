#include "core/slot/germination.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/slot/init_scope.h"
#include "torch/nn/module.h"

namespace esper::slot {
namespace {

uint64_t HashText(const std::string& text) {  // FNV-1a, stable across runs.
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (const unsigned char c : text) hash = (hash ^ c) * 0x100000001b3ULL;
  return hash;
}

uint64_t InitSeedOf(const SeedSlot::Options& options, uint64_t generation) {
  return MixSeed(options.init_seed, HashText(options.slot_id), generation);
}

// Modules are made for training, whatever mode the caller is in.
class BuildModeGuard {
 private:
  const c10::InferenceMode inference_{false};
  const at::AutoGradMode gradients_{true};
};

// Runs a fixed input through the module. INVALID_ARGUMENT if the output has
// another shape.
absl::Status ProbeShape(SeedModule& module, const SeedSlot::Options& options) {
  const bool cnn = options.topology == Topology::kCnn;
  const std::vector<int64_t> shape =
      cnn ? std::vector<int64_t>{1, options.channels, 32, 32}
          : std::vector<int64_t>{2, 8, options.channels};
  const at::NoGradGuard no_grad;
  const int64_t elements =
      cnn ? options.channels * 1024 : options.channels * 16;
  const at::Tensor probe =
      at::arange(elements, at::TensorOptions().dtype(at::kDouble))
          .div(static_cast<double>(elements))
          .reshape(shape)
          .to(options.device, options.dtype);
  const bool training = module.is_training();
  module.eval();
  const at::Tensor output = module.forward(probe);
  module.train(training);
  if (output.defined() && output.sizes() == probe.sizes()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "Blueprint ", module.blueprint_id(), " turns [",
      absl::StrJoin(shape, ", "), "] into ",
      output.defined()
          ? absl::StrCat("[", absl::StrJoin(output.sizes(), ", "), "]")
          : "an undefined tensor",
      "; a seed must keep the shape."));
}

absl::Status CheckRequest(const GerminateRequest& request, BlendId blend) {
  const double target = request.alpha_target.value_or(1.0);
  if (!(target > 0 && target <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("Alpha target must be in (0, 1], got ", target, "."));
  }
  if ((blend == BlendId::kGated) !=
      (request.algorithm == AlphaAlgorithm::kGate)) {
    return absl::InvalidArgumentError(
        absl::StrCat("Blend gated goes with algorithm GATE and no other, got ",
                     request.blend_id, " with ",
                     AlphaAlgorithmName(request.algorithm), "."));
  }
  if (request.tempo < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Tempo must be at least 1 epoch, got ", request.tempo, "."));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<GateNetwork>> BuildGate(
    const SeedSlot::Options& options, uint64_t generation, int64_t total_steps,
    bool nearly_open) {
  const BuildModeGuard mode;
  const ScopedInitSeed scope(
      MixSeed(InitSeedOf(options, generation), HashText("gate"), 0));
  GateNetwork::Options gate_options;
  gate_options.channels = options.channels;
  gate_options.topology = options.topology;
  gate_options.total_steps = total_steps;
  auto gate = GateNetwork::Create(gate_options);
  if (!gate.ok()) return gate.status();
  (*gate)->to(options.device, options.dtype);
  if (nearly_open) (*gate)->OpenNearly();
  return gate;
}

absl::StatusOr<Seed> BuildSeed(const SeedSlot::Options& options,
                               const BlueprintRegistry& registry,
                               const GerminateRequest& request,
                               uint64_t generation, absl::Time now) {
  const auto blend = ParseBlendId(request.blend_id);
  if (!blend.ok()) return blend.status();
  if (absl::Status status = CheckRequest(request, *blend); !status.ok()) {
    return status;
  }
  const auto blueprint = registry.Find(options.topology, request.blueprint_id);
  if (!blueprint.ok()) return blueprint.status();

  Seed seed;
  {
    const BuildModeGuard mode;
    const ScopedInitSeed scope(InitSeedOf(options, generation));
    SeedModuleOptions module_options;
    module_options.channels = options.channels;
    module_options.init_profile = options.init_profile;
    module_options.algorithm = request.algorithm;
    module_options.seed = InitSeedOf(options, generation);
    module_options.values = request.values;
    auto module =
        registry.Create(options.topology, request.blueprint_id, module_options);
    if (!module.ok()) return module.status();
    seed.module = *std::move(module);
    seed.module->to(options.device, options.dtype);
    if (absl::Status status = ProbeShape(*seed.module, options); !status.ok()) {
      return status;
    }
  }
  if (request.algorithm == AlphaAlgorithm::kGate) {
    auto gate = BuildGate(options, generation, request.tempo,
                          /*nearly_open=*/false);
    if (!gate.ok()) return gate.status();
    seed.gate = *std::move(gate);
  }

  seed.slot_id = options.slot_id;
  seed.blueprint_id = request.blueprint_id;
  seed.seed_id = request.seed_id.empty()
                     ? absl::StrCat(options.slot_id, "-", request.blueprint_id)
                     : request.seed_id;
  seed.blueprint_index = (*blueprint)->action_index;
  seed.generation = generation;
  seed.topology = options.topology;
  seed.blueprint_options = request.values;
  seed.init_profile = options.init_profile;
  seed.tempo = request.tempo;
  seed.alpha_target = request.alpha_target.value_or(1.0);
  seed.stage = StageMachine(SeedStage::kDormant, now);
  seed.algorithm = request.algorithm;
  seed.blend_id = *blend;
  seed.probe = std::make_shared<HealthProbe>();
  seed.metrics.host_param_count = options.host_param_count;
  for (const at::Tensor& parameter : seed.module->parameters()) {
    if (parameter.requires_grad()) {
      seed.metrics.seed_param_count += parameter.numel();
    }
  }
  return seed;
}

}  // namespace esper::slot
