#ifndef ESPER_TESTS_GOLDEN_POLICY_PARITY_GOLDEN_NETWORK_H_
#define ESPER_TESTS_GOLDEN_POLICY_PARITY_GOLDEN_NETWORK_H_

#include <memory>
#include <string>

#include "ATen/core/Tensor.h"
#include "core/policy/inference_policy.h"
#include "core/policy/policy_spec.h"
#include "core/policy/recurrent_policy.h"
#include "tests/golden/policy_parity/golden_file.h"
#include "tests/testing/golden_report.h"

namespace esper::testing {

// One network of the reference vectors, ready to act and to evaluate.
class GoldenNetwork {
 public:
  // `directory`/`name`.weights.safetensors if it exists; otherwise the weights
  // that the formula of the metadata of `any_file` gives. Throws
  // std::runtime_error if neither works.
  GoldenNetwork(const std::string& directory, const std::string& name,
                const GoldenFile& any_file);

  const policy::PolicySpec& spec() const { return spec_; }
  // In evaluation mode.
  const policy::RecurrentPolicy& module() const { return *module_; }
  policy::RecurrentPolicy& mutable_module() { return *module_; }
  const policy::InferencePolicy& inference() const { return *inference_; }
  // Upstream's floors, or none.
  policy::FloorSettings Floors(bool with_floors) const;

  // "<prefix><head>" of every head, packed along a last axis: for per-choice
  // tensors [..., A].
  at::Tensor TakeChoices(GoldenFile& file, const std::string& prefix) const;
  // The same for per-head tensors: [..., K].
  at::Tensor TakeHeads(GoldenFile& file, const std::string& prefix) const;
  // Compares packed values [..., K] with "<prefix><head>".
  void CompareHeads(GoldenReport::Case& test, GoldenFile& file,
                    const std::string& prefix, const at::Tensor& actual) const;
  // Fails unless the file is about this network.
  void CheckMetadata(GoldenReport::Case& test, const GoldenFile& file) const;

 private:
  policy::PolicySpec spec_;
  std::shared_ptr<policy::RecurrentPolicy> module_;
  std::shared_ptr<const policy::InferencePolicy> inference_;
};

// Whole sequences: "<net>.forward.safetensors".
void CheckForward(const GoldenNetwork& network, const std::string& name,
                  GoldenFile& file, GoldenReport* report);
// Single steps: "<net>.get_action.safetensors".
void CheckGetAction(const GoldenNetwork& network, const std::string& name,
                    GoldenFile& file, GoldenReport* report);
// A rollout and its evaluations: "<net>.evaluate.safetensors".
void CheckEvaluate(const GoldenNetwork& network, const std::string& name,
                   GoldenFile& file, GoldenReport* report);
// Gradients, with the inputs of `evaluate`: "<net>.grads.safetensors".
void CheckGradients(GoldenNetwork& network, const std::string& name,
                    GoldenFile& evaluate, GoldenFile& file,
                    GoldenReport* report);
// "distribution.safetensors".
void CheckDistribution(GoldenFile& file, GoldenReport* report);
// "heuristic.safetensors".
void CheckHeuristic(GoldenFile& file, GoldenReport* report);

}  // namespace esper::testing
#endif  // ESPER_TESTS_GOLDEN_POLICY_PARITY_GOLDEN_NETWORK_H_
