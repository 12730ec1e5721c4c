#ifndef ESPER_CORE_POLICY_INFERENCE_POLICY_H_
#define ESPER_CORE_POLICY_INFERENCE_POLICY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "core/policy/inference_precision.h"
#include "core/policy/policy_forward.h"
#include "core/policy/sampler.h"
#include "core/tensor/safetensors.h"

namespace esper::policy {

class PackedPolicy;  // core/policy/packed_policy.h

// What is done to a raw observation before the network sees it:
// clamp((x - mean) / sqrt(variance + epsilon), -limit, limit), per feature.
struct ObservationNormalizer {
  at::Tensor mean;      // float32 or float64 [D]; undefined: identity.
  at::Tensor variance;  // Same; >= 0.
  double epsilon = 1e-4;
  double limit = 10.0;
};

// One published version of a policy, ready to act: a private copy of the
// weights in which nothing requires or can get a gradient, with the observation
// statistics of that version.
//
// Immutable and re-entrant: any number of threads may act with one object.
class InferencePolicy {
 public:
  // Copies. INVALID_ARGUMENT for an invalid specification, weights that are not
  // exactly its parameters and finite, a normaliser of another width, or floors
  // that do not fit (BAD_FLOOR). `floors`: those that this version acts with;
  // absent: the specification's. `precision`: of the products of `GetAction`
  // and `GetValue`.
  static absl::StatusOr<std::shared_ptr<const InferencePolicy>> Create(
      const PolicySpec& spec, const tensor::NamedTensors& weights,
      int64_t policy_version, const ObservationNormalizer& normalizer = {},
      const std::optional<FloorSettings>& floors = std::nullopt,
      InferencePrecision precision = InferencePrecision::kFp32);

  ~InferencePolicy();

  const PolicySpec& spec() const;
  const HeadLayout& layout() const;
  const std::string& spec_digest() const;
  int64_t policy_version() const;
  // In force when acting; training evaluates with the same.
  const FloorSettings& floors() const;
  InferencePrecision precision() const;
  // The view that sampler functions take, in fp32: the reference for what is
  // below, and the source of what is rarely asked for. Valid while this object
  // lives.
  const ActingPolicy& acting() const;
  // The network and sampler that act, on plain numbers. Observations as the
  // network sees them. Valid while this object lives.
  const PackedPolicy& packed() const;

  // As the function of the same name in core/policy/sampler.h, on raw
  // observations. The first two run the packed policy.
  ActionSample GetAction(const PolicyInputs& inputs, const Noise& noise,
                         const SampleOptions& options = {}) const;
  BehaviourTensor GetValue(const PolicyInputs& inputs) const;
  BehaviourTensor PredictContributions(const PolicyInputs& inputs) const;
  // As the function of core/policy/policy_forward.h, on raw observations.
  ForwardOutput Forward(const ForwardInputs& inputs) const;
  // The observations as the network sees them: float32, same shape, a tensor
  // of its own unless there is no normaliser.
  at::Tensor Normalize(const at::Tensor& observations) const;
  // Zeros [L, B, H] twice.
  RecurrentState InitialState(int64_t batch) const;

 private:
  struct Parts;
  explicit InferencePolicy(std::unique_ptr<const Parts> parts);

  const std::unique_ptr<const Parts> parts_;
};

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_INFERENCE_POLICY_H_
