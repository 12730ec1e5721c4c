#include "core/host/model_checkpoint.h"

#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/ScalarType.h>

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/error.h"
#include "core/slot/slot_checkpoint_codec.h"
#include "core/slot/slot_checkpoint_restore.h"
#include "core/slot/topology.h"
#include "nlohmann/json.hpp"

namespace esper::host {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kVersion = 1;
constexpr char kModelKey[] = "esper.model";
constexpr char kHostPrefix[] = "host.";

std::string SlotKey(const std::string& id) {
  return absl::StrCat("esper.slot.", id);
}
std::string SlotPrefix(const std::string& id) {
  return absl::StrCat("seed_slots.", id, ".");
}

absl::Status Corrupt(const std::string& key, const std::string& tensor,
                     const std::string& what) {
  ErrorDetail detail;
  detail.reason = "CORRUPT_CHECKPOINT";
  detail.field = key;
  detail.tensor = tensor;
  detail.hint = "Restore the checkpoint from a good copy.";
  return MakeStatus(
      absl::StatusCode::kDataLoss, detail,
      absl::StrCat("Model checkpoint, ", tensor.empty() ? key : tensor, ": ",
                   what, "."));
}

absl::Status Mismatch(const std::string& key, const std::string& what) {
  ErrorDetail detail;
  detail.reason = "SPEC_MISMATCH";
  detail.field = key;
  detail.hint = "Load the checkpoint into a model like the saved one.";
  return MakeStatus(absl::StatusCode::kFailedPrecondition, detail,
                    absl::StrCat("The model cannot take this checkpoint, ", key,
                                 ": ", what, "."));
}

// Parameters and buffers of the host, tied ones once.
tensor::NamedTensors HostTensors(const GrowableModel& model) {
  tensor::NamedTensors tensors;
  std::set<const void*> seen;
  const auto add = [&](const std::string& name, const at::Tensor& tensor) {
    if (!seen.insert(tensor.unsafeGetTensorImpl()).second) return;
    tensors.emplace_back(kHostPrefix + name, tensor);
  };
  for (const auto& item : model.host().named_parameters()) {
    add(item.key(), item.value());
  }
  for (const auto& item : model.host().named_buffers()) {
    add(item.key(), item.value());
  }
  return tensors;
}

absl::Status CheckHeader(const GrowableModel& model,
                         const tensor::Safetensors& saved) {
  const std::string* text = saved.FindMetadata(kModelKey);
  if (text == nullptr) return Corrupt(kModelKey, "", "it is missing");
  const Json json = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("version") ||
      !json.contains("topology") || !json.contains("slots")) {
    return Corrupt(kModelKey, "", "it lacks version, topology or slots");
  }
  if (json["version"] != kVersion) {
    return Corrupt(
        "version", "",
        absl::StrCat("must be ", kVersion, ", is ", json["version"].dump()));
  }
  const Json topology = slot::TopologyName(model.host().topology());
  if (json["topology"] != topology) {
    return Mismatch("topology", absl::StrCat("it has ", json["topology"].dump(),
                                             ", the model ", topology.dump()));
  }
  const Json slots = model.slot_ids();
  if (json["slots"] != slots) {
    return Mismatch("slots", absl::StrCat("it has ", json["slots"].dump(),
                                          ", the model ", slots.dump()));
  }
  return absl::OkStatus();
}

// Takes the tensors of one owner, their prefix removed, out of `left`.
tensor::NamedTensors Take(const std::string& prefix,
                          tensor::NamedTensors& left) {
  tensor::NamedTensors taken, rest;
  for (auto& [name, tensor] : left) {
    if (name.compare(0, prefix.size(), prefix) == 0) {
      taken.emplace_back(name.substr(prefix.size()), std::move(tensor));
    } else {
      rest.emplace_back(std::move(name), std::move(tensor));
    }
  }
  left = std::move(rest);
  return taken;
}

// Pairs of (host tensor, saved tensor); each saved one is used once.
absl::StatusOr<std::vector<std::pair<at::Tensor, at::Tensor>>> MatchHost(
    const GrowableModel& model, tensor::NamedTensors& left) {
  std::map<std::string, at::Tensor> saved;
  for (auto& [name, tensor] : Take(kHostPrefix, left)) {
    if (!saved.emplace(kHostPrefix + name, tensor).second) {
      return Corrupt("", kHostPrefix + name, "it is there twice");
    }
  }
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs;
  for (const auto& [name, tensor] : HostTensors(model)) {
    const auto found = saved.find(name);
    if (found == saved.end()) return Corrupt("", name, "it is missing");
    const at::Tensor& from = found->second;
    if (from.sizes() != tensor.sizes() ||
        from.scalar_type() != tensor.scalar_type()) {
      return Corrupt(
          "", name,
          absl::StrCat("the model has ", c10::toString(tensor.scalar_type()),
                       " [", absl::StrJoin(tensor.sizes(), ", "),
                       "], the checkpoint ", c10::toString(from.scalar_type()),
                       " [", absl::StrJoin(from.sizes(), ", "), "]"));
    }
    pairs.emplace_back(tensor, from);
    saved.erase(found);
  }
  if (!saved.empty()) {
    return Corrupt("", saved.begin()->first, "the model has no such tensor");
  }
  return pairs;
}

}  // namespace

absl::StatusOr<tensor::Safetensors> SaveModel(const GrowableModel& model) {
  const c10::InferenceMode normal(false);
  const at::NoGradGuard no_grad;
  tensor::Safetensors saved;
  const Json header = {
      {"version", kVersion},
      {"topology", slot::TopologyName(model.host().topology())},
      {"slots", model.slot_ids()},
  };
  saved.metadata[kModelKey] = header.dump();
  for (const auto& [name, tensor] : HostTensors(model)) {
    saved.tensors.emplace_back(name, tensor.detach().clone());
  }
  for (const auto& slot : model.slots()) {
    slot::SlotCheckpoint checkpoint = slot::SaveSlot(*slot);
    auto record = slot::EncodeSlotRecord(checkpoint.record);
    if (!record.ok()) return record.status();
    saved.metadata[SlotKey(slot->slot_id())] = *std::move(record);
    for (auto& [name, tensor] : checkpoint.tensors) {
      saved.tensors.emplace_back(SlotPrefix(slot->slot_id()) + name,
                                 std::move(tensor));
    }
  }
  return saved;
}

absl::Status LoadModel(GrowableModel& model, const tensor::Safetensors& saved,
                       const slot::BlueprintRegistry& registry) {
  if (absl::Status status = CheckHeader(model, saved); !status.ok()) {
    return status;
  }
  tensor::NamedTensors left = saved.tensors;
  auto host = MatchHost(model, left);
  if (!host.ok()) return host.status();
  std::vector<slot::PreparedSlot> prepared;
  for (const auto& slot : model.slots()) {
    const std::string key = SlotKey(slot->slot_id());
    const std::string* text = saved.FindMetadata(key);
    if (text == nullptr) return Corrupt(key, "", "it is missing");
    auto record = slot::DecodeSlotRecord(*text);
    if (!record.ok()) return record.status();
    slot::SlotCheckpoint checkpoint{*std::move(record),
                                    Take(SlotPrefix(slot->slot_id()), left)};
    auto ready = slot::PreparedSlot::Prepare(*slot, checkpoint, registry);
    if (!ready.ok()) return ready.status();
    prepared.push_back(*std::move(ready));
  }
  if (!left.empty()) {
    return Corrupt("", left[0].first, "the model has no such tensor");
  }

  // Nothing below can fail.
  const at::NoGradGuard no_grad;
  for (auto& [into, from] : *host) into.copy_(from);
  for (size_t i = 0; i < prepared.size(); ++i) {
    std::move(prepared[i]).Commit(*model.slots()[i]);
  }
  return absl::OkStatus();
}

absl::Status WriteModel(const GrowableModel& model, const std::string& path) {
  const auto saved = SaveModel(model);
  if (!saved.ok()) return saved.status();
  return tensor::WriteSafetensors(path, saved->tensors, saved->metadata);
}

absl::Status ReadModel(GrowableModel& model, const std::string& path,
                       const slot::BlueprintRegistry& registry) {
  const auto saved = tensor::ReadSafetensors(path);
  if (!saved.ok()) return saved.status();
  return LoadModel(model, *saved, registry);
}

}  // namespace esper::host
