#include "core/policy/policy_io.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/error.h"
#include "core/policy/observation.h"
#include "core/policy/parameter_list.h"
#include "core/tensor/checks.h"

namespace esper::policy {
namespace {

constexpr char kCompiledPrefix[] = "_orig_mod.";
constexpr char kSchemaVersion[] = "1";
constexpr char kValueHeadSchemaVersion[] = "2";

absl::Status Refuse(const std::string& reason, const std::string& tensor,
                    const std::string& message) {
  ErrorDetail detail;
  detail.reason = reason;
  detail.tensor = tensor;
  return MakeStatus(absl::StatusCode::kInvalidArgument, detail, message);
}

const at::Tensor* Find(const tensor::NamedTensors& tensors,
                       const std::string& name) {
  for (const auto& [key, tensor] : tensors) {
    if (key == name) return &tensor;
  }
  return nullptr;
}

std::string ShapeName(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::Status ValidateEntry(const ParameterInfo& info, const PolicySpec& spec,
                           const at::Tensor& value) {
  const bool is_index = info.kind == ParameterKind::kNullIndex;
  if (!value.defined() ||
      value.scalar_type() != (is_index ? at::kLong : at::kFloat) ||
      value.sizes() != at::IntArrayRef(info.shape)) {
    return Refuse(
        "BAD_SHAPE", info.name,
        absl::StrCat("Weight ", info.name, " must be ",
                     is_index ? "int64" : "float32", ShapeName(info.shape),
                     ", got ", tensor::Describe(value), "."));
  }
  if (is_index) {
    const int64_t index = value.item<int64_t>();
    if (index == spec.categorical->cardinality) return absl::OkStatus();
    return Refuse(
        "BAD_SHAPE", info.name,
        absl::StrCat(info.name, " must be ", spec.categorical->cardinality,
                     ", got ", index, "."));
  }
  if (tensor::FirstNonFinite(value.detach()) >= 0) {
    return Refuse(
        "NONFINITE_INPUT", info.name,
        absl::StrCat("Weight ", info.name, " holds NaN or infinity."));
  }
  return absl::OkStatus();
}

// Size `dim` of a matrix that every network-growing policy has.
absl::StatusOr<int64_t> MatrixSize(const tensor::NamedTensors& weights,
                                   const std::string& name, int64_t dim) {
  const at::Tensor* matrix = Find(weights, name);
  if (matrix == nullptr) {
    return Refuse("BAD_SHAPE", name,
                  absl::StrCat("Weight ", name, " is missing."));
  }
  if (matrix->dim() != 2) {
    return Refuse("BAD_SHAPE", name,
                  absl::StrCat("Weight ", name, " is not a matrix, but ",
                               tensor::Describe(*matrix), "."));
  }
  return matrix->size(dim);
}

tensor::NamedTensors WithoutPrefix(const tensor::NamedTensors& tensors) {
  const std::string prefix = kCompiledPrefix;
  tensor::NamedTensors result;
  for (const auto& [name, tensor] : tensors) {
    const bool prefixed = name.compare(0, prefix.size(), prefix) == 0;
    result.emplace_back(prefixed ? name.substr(prefix.size()) : name, tensor);
  }
  return result;
}

// The old name of the value head; its weights mean something else.
absl::Status CheckGeneration(const tensor::Safetensors& file,
                             const tensor::NamedTensors& weights) {
  bool old_value = false;
  bool new_value = false;
  for (const auto& [name, tensor] : weights) {
    old_value = old_value || name.rfind("value_head.", 0) == 0;
    new_value = new_value || name.rfind("state_value_head.", 0) == 0;
  }
  std::string problem;
  if (old_value && !new_value) {
    problem =
        "it holds value_head.* without state_value_head.*: it was made before "
        "the value head was renamed, and its values depend on the op";
  }
  const std::map<std::string, std::string> expected = {
      {"schema_version", kSchemaVersion},
      {"value_head_schema_version", kValueHeadSchemaVersion}};
  for (const auto& [key, version] : expected) {
    const std::string* found = file.FindMetadata(key);
    if (found != nullptr && *found != version) {
      problem =
          absl::StrCat(key, " is ", *found, ", this build reads ", version);
    }
  }
  if (problem.empty()) return absl::OkStatus();
  ErrorDetail detail;
  detail.reason = "SPEC_MISMATCH";
  return MakeStatus(
      absl::StatusCode::kFailedPrecondition, detail,
      absl::StrCat("The policy file cannot be read: ", problem, "."));
}

}  // namespace

absl::Status ValidateWeights(const PolicySpec& spec,
                             const tensor::NamedTensors& weights) {
  std::map<std::string, const at::Tensor*> given;
  for (const auto& [name, value] : weights) {
    if (!given.emplace(name, &value).second) {
      return Refuse("BAD_SHAPE", name,
                    absl::StrCat("Weight ", name, " is given twice."));
    }
  }
  for (const ParameterInfo& info : ListParameters(spec)) {
    const auto it = given.find(info.name);
    if (it == given.end()) {
      return Refuse("BAD_SHAPE", info.name,
                    absl::StrCat("Weight ", info.name, " is missing."));
    }
    const absl::Status status = ValidateEntry(info, spec, *it->second);
    if (!status.ok()) return status;
    given.erase(it);
  }
  if (given.empty()) return absl::OkStatus();
  const std::string& name = given.begin()->first;
  return Refuse(
      "BAD_SHAPE", name,
      absl::StrCat("Weight ", name, " is no part of policy ", spec.name, "."));
}

absl::StatusOr<PolicySpec> DeriveSpec(
    const tensor::NamedTensors& weights,
    const std::vector<std::string>& slot_ids) {
  const auto slots = MatrixSize(weights, "slot_head.2.weight", 0);
  if (!slots.ok()) return slots.status();
  const auto features = MatrixSize(weights, "feature_net.0.weight", 0);
  if (!features.ok()) return features.status();
  const auto inputs = MatrixSize(weights, "feature_net.0.weight", 1);
  if (!inputs.ok()) return inputs.status();
  const auto hidden = MatrixSize(weights, "lstm.layers.0.weight_hh_l0", 1);
  if (!hidden.ok()) return hidden.status();

  NetworkGrowingOptions options;
  options.feature_dim = *features;
  options.hidden_dim = *hidden;
  options.lstm_layers = 0;
  while (Find(weights, absl::StrCat("lstm.layers.", options.lstm_layers,
                                    ".weight_hh_l0")) != nullptr) {
    ++options.lstm_layers;
  }
  options.slot_ids = slot_ids;
  if (slot_ids.empty()) {
    for (int64_t i = 0; i < *slots; ++i) {
      options.slot_ids.push_back(absl::StrCat("r0c", i));
    }
  } else if (static_cast<int64_t>(slot_ids.size()) != *slots) {
    return Refuse("BAD_SHAPE", "slot_head.2.weight",
                  absl::StrCat("The weights have ", *slots, " slots, but ",
                               slot_ids.size(), " slot ids are given."));
  }
  PolicySpec spec = PolicySpec::NetworkGrowing(options);
  const int64_t width =
      *inputs - spec.categorical->count * spec.categorical->width;
  if (width != spec.observation_width()) {
    return Refuse(
        "BAD_SHAPE", "feature_net.0.weight",
        absl::StrCat("The weights take observations of width ", width, "; ",
                     *slots, " slots have ", spec.observation_width(), "."));
  }
  if (absl::Status status = spec.Validate(); !status.ok()) return status;
  return spec;
}

absl::StatusOr<PolicyFile> ImportPolicy(const tensor::Safetensors& file) {
  PolicyFile result;
  const tensor::NamedTensors weights = WithoutPrefix(file.tensors);
  absl::Status status = CheckGeneration(file, weights);
  if (!status.ok()) return status;
  if (const std::string* json = file.FindMetadata("policy_spec")) {
    auto spec = PolicySpec::FromJson(*json);
    if (!spec.ok()) return spec.status();
    result.spec = *std::move(spec);
  } else {
    std::vector<std::string> slot_ids;
    if (const std::string* ids = file.FindMetadata("slot_ids")) {
      slot_ids = absl::StrSplit(*ids, ',', absl::SkipEmpty());
    }
    auto spec = DeriveSpec(weights, slot_ids);
    if (!spec.ok()) return spec.status();
    result.spec = *std::move(spec);
  }
  status = ValidateWeights(result.spec, weights);
  if (!status.ok()) return status;
  for (const ParameterInfo& info : ListParameters(result.spec)) {
    result.weights.emplace_back(info.name, *Find(weights, info.name));
  }
  result.metadata = file.metadata;
  return result;
}

absl::StatusOr<PolicyFile> ReadPolicy(const std::string& path) {
  const auto file = tensor::ReadSafetensors(path);
  if (!file.ok()) return file.status();
  return ImportPolicy(*file);
}

std::map<std::string, std::string> PolicyMetadata(const PolicySpec& spec) {
  return {{"policy_spec", spec.ToJson()},
          {"spec_digest", spec.Digest()},
          {"slot_ids", absl::StrJoin(spec.slot_ids, ",")},
          {"schema_version", kSchemaVersion},
          {"value_head_schema_version", kValueHeadSchemaVersion}};
}

absl::Status WritePolicy(const std::string& path, const PolicySpec& spec,
                         const tensor::NamedTensors& weights,
                         const std::map<std::string, std::string>& extra) {
  absl::Status status = ValidateWeights(spec, weights);
  if (!status.ok()) return status;
  std::map<std::string, std::string> metadata = PolicyMetadata(spec);
  metadata.insert(extra.begin(), extra.end());
  return tensor::WriteSafetensors(path, weights, metadata);
}

}  // namespace esper::policy
