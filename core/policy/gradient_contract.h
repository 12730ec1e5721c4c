#ifndef ESPER_CORE_POLICY_GRADIENT_CONTRACT_H_
#define ESPER_CORE_POLICY_GRADIENT_CONTRACT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "core/policy/policy_spec.h"

// The two kinds of policy output, as types. Acting gives numbers, which can be
// stored and compared; evaluating gives tensors inside an open gradient graph.
// A loss that takes one where it needs the other does not compile.
namespace esper::policy {

// Under what the numbers were made.
struct BehaviourOrigin {
  int64_t policy_version = 0;
  std::string spec_digest;
  FloorSettings floors;
};

// Numbers that a policy gave while acting: detached float32, without arithmetic
// and without a conversion to a tensor. Copies share storage. Immutable.
class BehaviourTensor {
 public:
  BehaviourTensor() = default;  // Undefined.

  // Numbers read back from a recording. Throws GradientContractError if
  // `numbers` requires a gradient, ShapeError if it is not float32.
  static BehaviourTensor FromRecorded(
      const at::Tensor& numbers, std::shared_ptr<const BehaviourOrigin> origin);

  bool defined() const { return numbers_.defined(); }
  std::vector<int64_t> sizes() const { return numbers_.sizes().vec(); }
  int64_t size(int64_t dim) const { return numbers_.size(dim); }
  int64_t numel() const { return numbers_.numel(); }
  // Must be defined.
  const BehaviourOrigin& origin() const { return *origin_; }

  // Row-major host copy.
  std::vector<float> ToVector() const;
  // Copies into `destination`, of the same shape and float32, on any device.
  void CopyTo(at::Tensor& destination) const;

  // The tensor itself, for tests and diagnostics. Training on it trains
  // nothing.
  at::Tensor unsafe_tensor() const { return numbers_; }

 private:
  at::Tensor numbers_;
  std::shared_ptr<const BehaviourOrigin> origin_;
};

namespace internal {
class DifferentiableFactory;  // core/policy/evaluator.cc
}

// An output of `EvaluateActions`: part of an open gradient graph.
class DifferentiableTensor {
 public:
  DifferentiableTensor() = default;  // Undefined.

  bool defined() const { return value_.defined(); }
  std::vector<int64_t> sizes() const { return value_.sizes().vec(); }
  // For losses. Has a gradient function if anything it depends on is trained.
  const at::Tensor& tensor() const { return value_; }
  // Must be defined.
  const BehaviourOrigin& origin() const { return *origin_; }

 private:
  friend class internal::DifferentiableFactory;
  friend struct ImportanceRatios ImportanceRatio(
      const DifferentiableTensor& now, const BehaviourTensor& before);

  DifferentiableTensor(at::Tensor value,
                       std::shared_ptr<const BehaviourOrigin> origin);

  at::Tensor value_;
  std::shared_ptr<const BehaviourOrigin> origin_;
};

// exp(now - before), and how many versions lie between.
struct ImportanceRatios {
  DifferentiableTensor ratios;
  int64_t version_lag = 0;
};

// Probability ratio of recorded actions, the trained policy over the one that
// acted. Throws GradientContractError (SPEC_MISMATCH) if the two were made
// under different specifications or floors, ShapeError if shapes differ.
ImportanceRatios ImportanceRatio(const DifferentiableTensor& now,
                                 const BehaviourTensor& before);

// Clipped surrogate: -mean(min(r A, clamp(r, 1 - clip, 1 + clip) A)).
//   advantages: float32, shape of the ratios; detached.
at::Tensor PolicyLoss(const DifferentiableTensor& ratios,
                      const at::Tensor& advantages, double clip_ratio = 0.2);
// 0.5 mean((values - targets)^2); targets: float32, detached.
at::Tensor ValueLoss(const DifferentiableTensor& values,
                     const at::Tensor& targets);
// -mean(entropies).
at::Tensor EntropyLoss(const DifferentiableTensor& entropies);

// Throws GradientContractError (INFERENCE_ONLY) if `x` requires a gradient;
// `call` is the inference call, `name` the tensor. Undefined tensors pass.
void CheckDetached(const at::Tensor& x, const std::string& call,
                   const std::string& name);
// Throws GradientContractError (NOT_DIFFERENTIABLE) if `x` is an inference
// tensor. Undefined tensors pass.
void CheckTrainableInput(const at::Tensor& x, const std::string& call,
                         const std::string& name);

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_GRADIENT_CONTRACT_H_
