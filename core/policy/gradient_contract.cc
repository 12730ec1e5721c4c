#include "core/policy/gradient_contract.h"

#include <cstring>
#include <utility>

#include "ATen/ops/minimum.h"
#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "core/tensor/checks.h"

namespace esper::policy {
namespace {

GradientContractError Violation(const std::string& reason,
                                const std::string& tensor,
                                const std::string& message,
                                const std::string& hint) {
  ErrorDetail detail;
  detail.reason = reason;
  detail.tensor = tensor;
  detail.hint = hint;
  return GradientContractError(std::move(detail), message);
}

void CheckSameShape(const at::Tensor& x, const std::string& name,
                    const at::Tensor& reference) {
  if (x.defined() && x.scalar_type() == at::kFloat &&
      x.sizes() == reference.sizes()) {
    return;
  }
  throw ShapeError(name, tensor::Describe(reference), tensor::Describe(x));
}

}  // namespace

BehaviourTensor BehaviourTensor::FromRecorded(
    const at::Tensor& numbers, std::shared_ptr<const BehaviourOrigin> origin) {
  if (!numbers.defined() || numbers.scalar_type() != at::kFloat) {
    throw ShapeError("recorded numbers", "float32", tensor::Describe(numbers));
  }
  if (numbers.requires_grad()) {
    throw Violation("NOT_DIFFERENTIABLE", "recorded numbers",
                    "Recorded behaviour cannot require a gradient.",
                    "Record what GetAction returned; train on what "
                    "EvaluateActions returns.");
  }
  BehaviourTensor result;
  result.numbers_ = numbers;
  result.origin_ = std::move(origin);
  return result;
}

std::vector<float> BehaviourTensor::ToVector() const {
  const at::Tensor host = numbers_.to(at::kCPU).contiguous();
  const float* data = host.const_data_ptr<float>();
  return std::vector<float>(data, data + host.numel());
}

void BehaviourTensor::CopyTo(at::Tensor& destination) const {
  CheckSameShape(destination, "destination", numbers_);
  destination.copy_(numbers_);
}

DifferentiableTensor::DifferentiableTensor(
    at::Tensor value, std::shared_ptr<const BehaviourOrigin> origin)
    : value_(std::move(value)), origin_(std::move(origin)) {}

ImportanceRatios ImportanceRatio(const DifferentiableTensor& now,
                                 const BehaviourTensor& before) {
  const BehaviourOrigin& trained = now.origin();
  const BehaviourOrigin& acted = before.origin();
  if (trained.spec_digest != acted.spec_digest) {
    throw Violation(
        "SPEC_MISMATCH", "before",
        absl::StrCat("The behaviour was recorded under policy "
                     "specification ",
                     acted.spec_digest, ", not ", trained.spec_digest, "."),
        "Collect episodes with the policy that is trained.");
  }
  if (trained.floors != acted.floors) {
    throw Violation("SPEC_MISMATCH", "before",
                    "The behaviour was recorded under other probability "
                    "floors.",
                    "Evaluate under the floors that acted.");
  }
  const at::Tensor old = before.unsafe_tensor();
  CheckSameShape(old, "before", now.tensor());
  ImportanceRatios result;
  // An inference tensor cannot be saved for the backward pass; a copy can.
  const at::Tensor fixed = old.is_inference() ? old.clone() : old;
  result.ratios =
      DifferentiableTensor(now.tensor().sub(fixed).exp(), now.origin_);
  result.version_lag = trained.policy_version - acted.policy_version;
  return result;
}

at::Tensor PolicyLoss(const DifferentiableTensor& ratios,
                      const at::Tensor& advantages, double clip_ratio) {
  CheckSameShape(advantages, "advantages", ratios.tensor());
  const at::Tensor& r = ratios.tensor();
  const at::Tensor fixed = advantages.detach();
  const at::Tensor clipped = r.clamp(1 - clip_ratio, 1 + clip_ratio);
  return at::minimum(r.mul(fixed), clipped.mul(fixed)).mean().neg();
}

at::Tensor ValueLoss(const DifferentiableTensor& values,
                     const at::Tensor& targets) {
  CheckSameShape(targets, "targets", values.tensor());
  return values.tensor().sub(targets.detach()).square().mean().mul(0.5);
}

at::Tensor EntropyLoss(const DifferentiableTensor& entropies) {
  return entropies.tensor().mean().neg();
}

void CheckDetached(const at::Tensor& x, const std::string& call,
                   const std::string& name) {
  if (!x.defined() || !x.requires_grad()) return;
  throw Violation(
      "INFERENCE_ONLY", name,
      absl::StrCat(call, " is inference only, but ", name,
                   " requires a gradient, which it would silently drop."),
      "Call EvaluateActions to train, or pass the detached tensor.");
}

void CheckTrainableInput(const at::Tensor& x, const std::string& call,
                         const std::string& name) {
  if (!x.defined() || !x.is_inference()) return;
  throw Violation(
      "NOT_DIFFERENTIABLE", name,
      absl::StrCat(name, " given to ", call,
                   " is an inference tensor, which autograd cannot keep for "
                   "the backward pass."),
      "Pass a copy made outside inference mode, as a recording is.");
}

}  // namespace esper::policy
