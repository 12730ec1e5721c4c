#include "core/slot/slot_checkpoint_restore.h"

#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/error.h"
#include "core/slot/germination.h"

namespace esper::slot {
namespace {

constexpr char kSeedPrefix[] = "seed.";
constexpr char kGatePrefix[] = "gate.";

absl::Status Corrupt(const std::string& slot_id, const std::string& tensor,
                     const std::string& key, const std::string& what) {
  ErrorDetail detail;
  detail.reason = "CORRUPT_CHECKPOINT";
  detail.field = key;
  detail.tensor = tensor;
  detail.hint = "Restore the checkpoint from a good copy.";
  return MakeStatus(
      absl::StatusCode::kDataLoss, detail,
      absl::StrCat("Checkpoint of slot ", slot_id, ", ",
                   tensor.empty() ? key : tensor, ": ", what, "."));
}

absl::Status Mismatch(const std::string& slot_id, const std::string& key,
                      const std::string& what) {
  ErrorDetail detail;
  detail.reason = "SPEC_MISMATCH";
  detail.field = key;
  detail.hint = "Load the checkpoint into the model that it was saved from.";
  return MakeStatus(
      absl::StatusCode::kFailedPrecondition, detail,
      absl::StrCat("Slot ", slot_id, " cannot take this checkpoint, ", key,
                   ": ", what, "."));
}

absl::Status CheckFits(const SeedSlot::Options& slot,
                       const SlotRecord& record) {
  const auto compare = [&](const char* key, const std::string& saved,
                           const std::string& here) {
    if (saved == here) return absl::OkStatus();
    return Mismatch(slot.slot_id, key,
                    absl::StrCat("it has ", saved, ", the slot ", here));
  };
  const std::pair<const char*, std::pair<std::string, std::string>> pairs[] = {
      {"slot_id", {record.slot_id, slot.slot_id}},
      {"topology",
       {TopologyName(record.topology), TopologyName(slot.topology)}},
      {"channels",
       {absl::StrCat(record.channels), absl::StrCat(slot.channels)}},
      {"dtype", {record.dtype, c10::toString(slot.dtype)}},
  };
  for (const auto& [key, values] : pairs) {
    absl::Status status = compare(key, values.first, values.second);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// A tensor of the seed's networks.
struct Part {
  std::string name;  // "seed.conv.weight"
  at::Tensor tensor;
  bool parameter = false;
};

std::vector<Part> PartsOf(const Seed& seed) {
  std::vector<Part> parts;
  const auto add = [&parts](const char* prefix,
                            const torch::nn::Module& module) {
    for (const auto& item : module.named_parameters()) {
      parts.push_back({prefix + item.key(), item.value(), true});
    }
    for (const auto& item : module.named_buffers()) {
      parts.push_back({prefix + item.key(), item.value(), false});
    }
  };
  if (seed.module) add(kSeedPrefix, *seed.module);
  if (seed.gate) add(kGatePrefix, *seed.gate);
  return parts;
}

SeedRecord RecordOf(const Seed& seed) {
  SeedRecord record;
  record.seed_id = seed.seed_id;
  record.blueprint_id = seed.blueprint_id;
  record.blueprint_options = seed.blueprint_options;
  record.init_profile = seed.init_profile;
  record.generation = seed.generation;
  record.tempo = seed.tempo;
  record.alpha_target = seed.alpha_target;
  record.stage.stage = seed.stage.stage();
  record.stage.previous = seed.stage.previous();
  record.stage.previous_epochs = seed.stage.previous_epochs();
  record.stage.entered_at = seed.stage.entered_at();
  record.stage.history.assign(seed.stage.history().begin(),
                              seed.stage.history().end());
  record.alpha = seed.alpha.state();
  record.algorithm = seed.algorithm;
  record.blend_id = seed.blend_id;
  record.isolated = seed.isolated;
  record.metrics = seed.metrics;
  record.gradients = seed.gradients;
  record.gradients_healthy = seed.gradients_healthy;
  record.output_healthy = seed.output_healthy;
  record.telemetry_epoch = seed.telemetry_epoch;
  record.telemetry_max_epochs = seed.telemetry_max_epochs;
  record.prune_reason = seed.prune_reason;
  record.prune_initiator = seed.prune_initiator;
  record.cooldown_ticks = seed.cooldown_ticks;
  record.ste_blocked_steps = seed.probe->blocked_steps();
  for (const Part& part : PartsOf(seed)) {
    if (!part.parameter) continue;
    const bool frozen = std::any_of(
        seed.frozen.begin(), seed.frozen.end(),
        [&](const at::Tensor& other) { return other.is_same(part.tensor); });
    record.trainable[part.name] = frozen || part.tensor.requires_grad();
  }
  return record;
}

// Everything of `seed` but its networks and what the slot gives it.
void FillFrom(const SeedRecord& record, Seed& seed) {
  seed.seed_id = record.seed_id;
  seed.blueprint_id = record.blueprint_id;
  seed.blueprint_options = record.blueprint_options;
  seed.init_profile = record.init_profile;
  seed.generation = record.generation;
  seed.tempo = record.tempo;
  seed.alpha_target = record.alpha_target;
  seed.stage = StageMachine::Restore(
      record.stage.stage, record.stage.previous, record.stage.previous_epochs,
      record.stage.entered_at,
      std::deque<StageMachine::Entry>(record.stage.history.begin(),
                                      record.stage.history.end()));
  seed.alpha = AlphaController::FromState(record.alpha).value();  // Checked.
  seed.algorithm = record.algorithm;
  seed.blend_id = record.blend_id;
  seed.isolated = record.isolated;
  seed.metrics = record.metrics;
  seed.gradients = record.gradients;
  seed.gradients_healthy = record.gradients_healthy;
  seed.output_healthy = record.output_healthy;
  seed.telemetry_epoch = record.telemetry_epoch;
  seed.telemetry_max_epochs = record.telemetry_max_epochs;
  seed.prune_reason = record.prune_reason;
  seed.prune_initiator = record.prune_initiator;
  seed.cooldown_ticks = record.cooldown_ticks;
  seed.probe = std::make_shared<HealthProbe>(record.ste_blocked_steps);
}

// Gives the seed fresh networks of the recorded kind.
absl::Status BuildNetworks(const SeedSlot::Options& slot,
                           const SlotRecord& record,
                           const BlueprintRegistry& registry, Seed& seed) {
  const SeedRecord& from = *record.seed;
  SeedSlot::Options options = slot;
  options.init_profile = from.init_profile;
  GerminateRequest request;
  request.blueprint_id = from.blueprint_id;
  request.seed_id = from.seed_id;
  request.blend_id = BlendIdName(from.blend_id);
  request.tempo = from.tempo;
  request.algorithm = from.algorithm;
  request.alpha_target = from.alpha_target;
  request.values = from.blueprint_options;
  auto built = BuildSeed(options, registry, request, from.generation,
                         from.stage.entered_at);
  if (!built.ok()) {
    return Corrupt(
        slot.slot_id, "", "seed.blueprint_options",
        absl::StrCat("the seed cannot be rebuilt: ", built.status().message()));
  }
  seed.module = std::move(built->module);
  if (!record.gate) return absl::OkStatus();
  auto gate = BuildGate(options, from.generation, record.gate->total_steps,
                        /*nearly_open=*/false);
  if (!gate.ok()) return gate.status();
  seed.gate = *std::move(gate);
  return absl::OkStatus();
}

// Copies the saved tensors into the networks of `seed`, each exactly once.
absl::Status FillNetworks(const std::string& slot_id,
                          const SlotCheckpoint& checkpoint, const Seed& seed) {
  const c10::InferenceMode normal(false);
  const at::NoGradGuard no_grad;
  std::map<std::string, at::Tensor> saved;
  for (const auto& [name, tensor] : checkpoint.tensors) {
    if (!saved.emplace(name, tensor).second) {
      return Corrupt(slot_id, name, "", "it is there twice");
    }
  }
  std::map<std::string, bool> mask = checkpoint.record.seed->trainable;
  for (const Part& part : PartsOf(seed)) {
    const auto found = saved.find(part.name);
    if (found == saved.end()) {
      return Corrupt(slot_id, part.name, "", "it is missing");
    }
    const at::Tensor& from = found->second;
    if (!from.defined() || from.sizes() != part.tensor.sizes() ||
        from.scalar_type() != part.tensor.scalar_type()) {
      return Corrupt(
          slot_id, part.name, "",
          absl::StrCat(
              "it should be ", c10::toString(part.tensor.scalar_type()), " [",
              absl::StrJoin(part.tensor.sizes(), ", "), "], is ",
              from.defined() ? c10::toString(from.scalar_type()) : "", " [",
              from.defined() ? absl::StrJoin(from.sizes(), ", ") : "", "]"));
    }
    at::Tensor into = part.tensor;
    into.copy_(from);
    saved.erase(found);
    if (!part.parameter) continue;
    const auto trainable = mask.find(part.name);
    if (trainable == mask.end()) {
      return Corrupt(slot_id, "", absl::StrCat("seed.trainable.", part.name),
                     "it is missing");
    }
    into.set_requires_grad(trainable->second);
    mask.erase(trainable);
  }
  if (!saved.empty()) {
    return Corrupt(slot_id, saved.begin()->first, "", "no network owns it");
  }
  if (!mask.empty()) {
    return Corrupt(slot_id, "",
                   absl::StrCat("seed.trainable.", mask.begin()->first),
                   "no network owns it");
  }
  return absl::OkStatus();
}

}  // namespace

SlotCheckpoint SaveSlot(const SeedSlot& slot) {
  const c10::InferenceMode normal(false);
  const at::NoGradGuard no_grad;
  SlotCheckpoint checkpoint;
  SlotRecord& record = checkpoint.record;
  const SeedSlot::Options& options = slot.options();
  record.slot_id = options.slot_id;
  record.topology = options.topology;
  record.channels = options.channels;
  record.dtype = c10::toString(options.dtype);
  absl::MutexLock lock(&slot.mu_);
  record.germinations = slot.germinations_;
  record.sequence = slot.sequence_;
  record.auto_prune = slot.auto_prune_;
  if (!slot.seed_) return checkpoint;
  record.seed = RecordOf(*slot.seed_);
  if (slot.seed_->gate) {
    record.gate.emplace().total_steps = slot.seed_->gate->total_steps();
  }
  for (const Part& part : PartsOf(*slot.seed_)) {
    checkpoint.tensors.emplace_back(part.name, part.tensor.detach().clone());
  }
  return checkpoint;
}

absl::StatusOr<PreparedSlot> PreparedSlot::Prepare(
    const SeedSlot& slot, const SlotCheckpoint& checkpoint,
    const BlueprintRegistry& registry) {
  const SlotRecord& record = checkpoint.record;
  if (absl::Status status = CheckSlotRecord(record); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckFits(slot.options(), record); !status.ok()) {
    return status;
  }
  PreparedSlot prepared;
  prepared.germinations_ = record.germinations;
  prepared.sequence_ = record.sequence;
  prepared.auto_prune_ = record.auto_prune;
  if (!record.seed) {
    if (!checkpoint.tensors.empty()) {
      return Corrupt(record.slot_id, checkpoint.tensors[0].first, "",
                     "there is no seed to own it");
    }
    return prepared;
  }
  const auto blueprint =
      registry.Find(record.topology, record.seed->blueprint_id);
  if (!blueprint.ok()) {
    return Mismatch(record.slot_id, "seed.blueprint_id",
                    std::string(blueprint.status().message()));
  }
  Seed& seed = prepared.seed_.emplace();
  seed.slot_id = record.slot_id;
  seed.topology = record.topology;
  seed.blueprint_index = (*blueprint)->action_index;
  FillFrom(*record.seed, seed);
  if (!IsFailureStage(record.seed->stage.stage)) {
    absl::Status status = BuildNetworks(slot.options(), record, registry, seed);
    if (!status.ok()) return status;
  }
  absl::Status status = FillNetworks(record.slot_id, checkpoint, seed);
  if (!status.ok()) return status;
  return prepared;
}

void PreparedSlot::Commit(SeedSlot& slot) && {
  absl::MutexLock lock(&slot.mu_);
  if (seed_) {
    if (seed_->module) seed_->module->train(slot.is_training());
    if (seed_->gate) seed_->gate->train(slot.is_training());
    UpdateBlendOutFreeze(*seed_);
  }
  slot.germinations_ = germinations_;
  slot.sequence_ = sequence_;
  slot.auto_prune_ = std::move(auto_prune_);
  slot.monitor_.Clear();
  slot.CommitLocked(std::move(seed_));
}

absl::Status LoadSlot(SeedSlot& slot, const SlotCheckpoint& checkpoint,
                      const BlueprintRegistry& registry) {
  auto prepared = PreparedSlot::Prepare(slot, checkpoint, registry);
  if (!prepared.ok()) return prepared.status();
  (*std::move(prepared)).Commit(slot);
  return absl::OkStatus();
}

}  // namespace esper::slot
