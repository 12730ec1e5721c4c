#include "tests/golden/blueprints_parity/vectors.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "core/host/cnn_blueprints.h"
#include "core/slot/slot_lifecycle.h"
#include "tests/core/slot/test_seeds.h"

namespace esper::testing {
namespace {

constexpr double kTolerance = 1e-5;

slot::AlphaAlgorithm AlgorithmNamed(const std::string& name) {
  for (const auto algorithm :
       {slot::AlphaAlgorithm::kAdd, slot::AlphaAlgorithm::kMultiply,
        slot::AlphaAlgorithm::kGate}) {
    if (name == slot::AlphaAlgorithmName(algorithm)) return algorithm;
  }
  throw std::out_of_range("algorithm " + name);
}

}  // namespace

Vectors::Vectors(const tensor::Safetensors& file) {
  const std::string* text = file.FindMetadata("description");
  if (text == nullptr) throw std::runtime_error("no description");
  description_ = nlohmann::json::parse(*text);
  if (description_.at("format") != 1) {
    throw std::runtime_error("format is not 1");
  }
  tensors_.insert(file.tensors.begin(), file.tensors.end());
}

slot::Topology Vectors::topology() const {
  return slot::ParseTopology(description_.at("topology").get<std::string>())
      .value();
}

const at::Tensor& Vectors::Get(const std::string& name) {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) throw std::out_of_range("no tensor " + name);
  read_.insert(name);
  return found->second;
}

std::vector<std::string> Vectors::Below(const std::string& prefix) const {
  std::vector<std::string> names;
  for (auto it = tensors_.lower_bound(prefix);
       it != tensors_.end() && it->first.rfind(prefix, 0) == 0; ++it) {
    names.push_back(it->first.substr(prefix.size()));
  }
  return names;
}

std::vector<std::string> Vectors::Unread() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors_) {
    if (read_.count(name) == 0) names.push_back(name);
  }
  return names;
}

void ExpectTensor(const std::string& what, const at::Tensor& actual,
                  const at::Tensor& expected, GoldenCase& result) {
  if (!actual.defined()) return result.Fail(what + " does not exist");
  if (actual.sizes() != expected.sizes()) {
    return result.Fail(what + " has another shape");
  }
  if (actual.numel() == 0) return;
  const at::Tensor a = actual.detach().to(at::kDouble);
  const at::Tensor b = expected.to(at::kDouble);
  const double error = (a - b).abs().max().item<double>();
  const double size = std::max(1.0, b.abs().max().item<double>());
  // False for NaN as well.
  if (!(error <= kTolerance * size)) {
    result.Fail(absl::StrCat(what, " is off by ", error, ", largest ", size));
  }
}

void LoadParameters(const torch::nn::Module& module, const std::string& prefix,
                    Vectors& vectors, GoldenCase& result) {
  at::NoGradGuard no_grad;
  size_t loaded = 0;
  for (const auto& item : module.named_parameters()) {
    const std::string name = prefix + item.key();
    if (!vectors.Has(name)) {
      result.Fail("no vector for parameter " + item.key());
    } else if (vectors.Get(name).sizes() != item.value().sizes()) {
      result.Fail("parameter " + item.key() + " has another shape");
    } else {
      at::Tensor parameter = item.value();
      parameter.copy_(vectors.Get(name));
      ++loaded;
    }
  }
  if (loaded != vectors.Below(prefix).size()) {
    result.Fail("parameters are missing of " + prefix);
  }
}

void ExpectGradients(const torch::nn::Module& module, const std::string& prefix,
                     Vectors& vectors, GoldenCase& result) {
  for (const auto& item : module.named_parameters()) {
    const std::string name = prefix + item.key();
    if (vectors.Has(name)) {
      ExpectTensor("gradient of " + item.key(), item.value().grad(),
                   vectors.Get(name), result);
    } else if (item.value().grad().defined()) {
      result.Fail("unexpected gradient of " + item.key());
    }
  }
}

void GrowSeed(const nlohmann::json& description, slot::SeedStage stage,
              slot::SeedSlot& slot) {
  slot::SlotLifecycle::Options options;
  options.registry = &host::DefaultBlueprints();
  const slot::SlotLifecycle lifecycle = MakeLifecycle(options);
  slot::GerminateRequest request;
  request.blueprint_id = description.at("blueprint").get<std::string>();
  request.algorithm =
      AlgorithmNamed(description.at("algorithm").get<std::string>());
  if (request.algorithm == slot::AlphaAlgorithm::kGate) {
    request.blend_id = "gated";
  }
  if (description.contains("values")) {
    description.at("values").get_to(request.values);
  }
  GrowTo(lifecycle, slot, stage, request);
  const double alpha = description.at("alpha");
  if (slot.alpha() == alpha) return;
  const auto moved = lifecycle.SetAlpha(slot, alpha);
  if (!moved.ok()) throw std::runtime_error(moved.status().ToString());
}

const torch::nn::Module* SeedOf(const slot::SeedSlot& slot) {
  return slot.plan()->seed.get();
}

const torch::nn::Module* GateOf(const slot::SeedSlot& slot) {
  return slot.plan()->gate.get();
}

slot::SeedStage StageNamed(const std::string& name) {
  for (int number = 0; number <= 10; ++number) {
    const auto stage = slot::StageFromNumber(number);
    if (stage.ok() && name == slot::StageName(*stage)) return *stage;
  }
  throw std::out_of_range("stage " + name);
}

}  // namespace esper::testing
