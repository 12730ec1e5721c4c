#include "tests/golden/policy_parity/golden_network.h"

#include <cmath>
#include <filesystem>
#include <stdexcept>

#include "ATen/ops/cat.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/full.h"
#include "ATen/ops/stack.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/policy/parameter_list.h"
#include "core/policy/policy_io.h"

namespace esper::testing {
namespace {

using policy::ParameterInfo;
using policy::ParameterKind;
using policy::PolicySpec;

template <typename T>
T OrThrow(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  throw std::runtime_error(std::string(value.status().message()));
}

uint64_t Mix(uint64_t z) {
  z += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

bool IsLayerNorm(const std::string& name) {
  for (const char* part :
       {"feature_net.1.", "layer_norms.", "state_value_head.1.",
        "state_value_head.4.", "q_head.1.", "q_head.4.",
        "contribution_predictor.1."}) {
    if (name.find(part) != std::string::npos) return true;
  }
  return false;
}

// Element v in [-1, 1) of a parameter to its value; every step in float.
float FormulaValue(const ParameterInfo& info, float v) {
  if (IsLayerNorm(info.name)) {
    return info.kind == ParameterKind::kOne ? 1.0f + 0.2f * v : 0.1f * v;
  }
  if (info.kind == ParameterKind::kEmbedding) return 0.5f * v;
  if (info.shape.size() == 2) {
    const double columns = static_cast<double>(info.shape[1]);
    return static_cast<float>(1.7 / std::sqrt(columns)) * v;
  }
  return 0.1f * v;
}

tensor::NamedTensors FormulaWeights(const PolicySpec& spec,
                                    const GoldenFile& file) {
  const uint64_t seed = std::stoull(file.Text("recipe_seed"));
  const std::vector<std::string> order =
      absl::StrSplit(file.Text("recipe_param_order"), ',');
  std::map<std::string, uint64_t> position;
  for (size_t k = 0; k < order.size(); ++k) position[order[k]] = k;
  tensor::NamedTensors weights;
  for (const ParameterInfo& info : policy::ListParameters(spec)) {
    if (info.kind == ParameterKind::kNullIndex) {
      weights.emplace_back(
          info.name, at::full({}, spec.categorical->cardinality, at::kLong));
      continue;
    }
    const uint64_t k = position.at(info.name);
    position.erase(info.name);
    at::Tensor value = at::empty(info.shape, at::kFloat);
    float* data = value.mutable_data_ptr<float>();
    for (int64_t i = 0; i < value.numel(); ++i) {
      const uint64_t z = Mix(seed + (k << 40) + static_cast<uint64_t>(i));
      const float v = 2.0f * (static_cast<float>(z >> 40) * 0x1p-24f) - 1.0f;
      data[i] = FormulaValue(info, v);
    }
    weights.emplace_back(info.name, value);
  }
  if (!position.empty()) {
    throw std::runtime_error("recipe_param_order names the unknown parameter " +
                             position.begin()->first);
  }
  return weights;
}

PolicySpec SpecOf(const GoldenFile& file) {
  policy::NetworkGrowingOptions options;
  options.slot_ids.clear();
  for (int64_t i = 0; i < file.Number("slots"); ++i) {
    options.slot_ids.push_back(absl::StrCat("r0c", i));
  }
  options.feature_dim = file.Number("feature_dim");
  options.hidden_dim = file.Number("hidden_dim");
  options.lstm_layers = file.Number("lstm_layers");
  return PolicySpec::NetworkGrowing(options);
}

}  // namespace

GoldenNetwork::GoldenNetwork(const std::string& directory,
                             const std::string& name,
                             const GoldenFile& any_file) {
  const std::string path =
      absl::StrCat(directory, "/", name, ".weights.safetensors");
  tensor::NamedTensors weights;
  if (std::filesystem::exists(path)) {
    policy::PolicyFile file = OrThrow(policy::ReadPolicy(path));
    spec_ = file.spec;
    weights = file.weights;
  } else if (any_file.HasMetadata("recipe_seed")) {
    spec_ = SpecOf(any_file);
    weights = FormulaWeights(spec_, any_file);
  } else {
    throw std::runtime_error("network " + name +
                             " has neither a weights file nor a formula");
  }
  module_ = std::make_shared<policy::RecurrentPolicy>(spec_, /*init_seed=*/1);
  module_->eval();
  const absl::Status loaded = module_->LoadStateDict(weights);
  if (!loaded.ok()) throw std::runtime_error(std::string(loaded.message()));
  inference_ = OrThrow(
      policy::InferencePolicy::Create(spec_, weights, /*policy_version=*/1));
}

policy::FloorSettings GoldenNetwork::Floors(bool with_floors) const {
  return OrThrow(with_floors ? spec_.FloorsFrom(policy::FloorMode::kUpstream,
                                                policy::UpstreamFloors())
                             : spec_.FloorsFrom(policy::FloorMode::kNone, {}));
}

at::Tensor GoldenNetwork::TakeChoices(GoldenFile& file,
                                      const std::string& prefix) const {
  std::vector<at::Tensor> heads;
  for (const policy::HeadSpec& head : spec_.heads) {
    heads.push_back(file.Take(prefix + head.name));
  }
  return at::cat(heads, -1);
}

at::Tensor GoldenNetwork::TakeHeads(GoldenFile& file,
                                    const std::string& prefix) const {
  std::vector<at::Tensor> heads;
  for (const policy::HeadSpec& head : spec_.heads) {
    heads.push_back(file.Take(prefix + head.name));
  }
  return at::stack(heads, -1);
}

void GoldenNetwork::CompareHeads(GoldenReport::Case& test, GoldenFile& file,
                                 const std::string& prefix,
                                 const at::Tensor& actual) const {
  for (int64_t k = 0; k < spec_.num_heads(); ++k) {
    const std::string name = prefix + spec_.heads[k].name;
    CompareOutput(test, name, actual.select(-1, k), file.Take(name));
  }
}

void GoldenNetwork::CheckMetadata(GoldenReport::Case& test,
                                  const GoldenFile& file) const {
  test.Equal("slots", file.Number("slots"),
             static_cast<int64_t>(spec_.slot_ids.size()));
  test.Equal("state_dim", file.Number("state_dim"), spec_.observation_width());
  test.Equal("feature_dim", file.Number("feature_dim"), spec_.feature_dim);
  test.Equal("hidden_dim", file.Number("hidden_dim"), spec_.hidden_dim);
  test.Equal("lstm_layers", file.Number("lstm_layers"), spec_.lstm_layers);
  std::vector<std::string> heads;
  for (const policy::HeadSpec& head : spec_.heads) heads.push_back(head.name);
  test.Equal("head_order", file.Text("head_order"), absl::StrJoin(heads, ","));
  test.Equal("sample_order", file.Text("sample_order"),
             absl::StrJoin(spec_.sampling_order, ","));
}

}  // namespace esper::testing
