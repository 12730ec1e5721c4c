#ifndef ESPER_TESTS_GOLDEN_BLUEPRINTS_PARITY_VECTORS_H_
#define ESPER_TESTS_GOLDEN_BLUEPRINTS_PARITY_VECTORS_H_

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/slot/seed_slot.h"
#include "core/slot/stage.h"
#include "core/slot/topology.h"
#include "core/tensor/safetensors.h"
#include "nlohmann/json.hpp"
#include "tests/testing/golden_report.h"

namespace esper::testing {

// A file of reference tensors that remembers which of them were asked for.
class Vectors {
 public:
  // Throws std::runtime_error if `file` has no description of format 1.
  explicit Vectors(const tensor::Safetensors& file);

  const nlohmann::json& description() const { return description_; }
  slot::Topology topology() const;

  bool Has(const std::string& name) const { return tensors_.count(name) > 0; }
  // Throws std::out_of_range, naming the tensor, if it is not there.
  const at::Tensor& Get(const std::string& name);
  // Names that begin with `prefix`, without it.
  std::vector<std::string> Below(const std::string& prefix) const;

  // Of what was never asked for.
  std::vector<std::string> Unread() const;

 private:
  std::map<std::string, at::Tensor> tensors_;
  std::set<std::string> read_;
  nlohmann::json description_;
};

using GoldenCase = GoldenReport::Case;

// |actual - expected| <= 1e-5 max(1, max |expected|), and equal shapes. An
// undefined `actual` fails.
void ExpectTensor(const std::string& what, const at::Tensor& actual,
                  const at::Tensor& expected, GoldenCase& result);

// Sets every parameter of `module` to the tensor `prefix` + its name. A
// parameter without a tensor, or a tensor without a parameter, fails.
void LoadParameters(const torch::nn::Module& module, const std::string& prefix,
                    Vectors& vectors, GoldenCase& result);

// Compares every parameter's gradient with the tensor `prefix` + its name.
// Where there is no such tensor, there must be no gradient.
void ExpectGradients(const torch::nn::Module& module, const std::string& prefix,
                     Vectors& vectors, GoldenCase& result);

// Plants the seed that `description` names (blueprint, algorithm, alpha,
// values) into an empty slot and brings it to `stage` by ordinary calls.
// Throws std::runtime_error if one of them is refused.
void GrowSeed(const nlohmann::json& description, slot::SeedStage stage,
              slot::SeedSlot& slot);

// The networks in a slot, null if absent.
const torch::nn::Module* SeedOf(const slot::SeedSlot& slot);
const torch::nn::Module* GateOf(const slot::SeedSlot& slot);

// Throws std::out_of_range for a name that is no stage.
slot::SeedStage StageNamed(const std::string& name);

}  // namespace esper::testing
#endif  // ESPER_TESTS_GOLDEN_BLUEPRINTS_PARITY_VECTORS_H_
