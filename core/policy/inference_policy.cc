#include "core/policy/inference_policy.h"

#include <unordered_map>
#include <utility>

#include "ATen/ops/zeros.h"
#include "absl/strings/str_cat.h"
#include "c10/core/InferenceMode.h"
#include "core/error.h"
#include "core/policy/network_forward.h"
#include "core/policy/packed_acting.h"
#include "core/policy/packed_policy.h"
#include "core/policy/policy_io.h"
#include "core/tensor/checks.h"

namespace esper::policy {
namespace {

absl::Status BadNormalizer(const std::string& tensor,
                           const std::string& message) {
  ErrorDetail detail;
  detail.reason = "BAD_SHAPE";
  detail.tensor = tensor;
  return MakeStatus(absl::StatusCode::kInvalidArgument, detail, message);
}

absl::Status ValidateStatistics(const at::Tensor& x, const std::string& name,
                                int64_t width) {
  if (!x.defined() || x.dim() != 1 || x.size(0) != width ||
      !x.is_floating_point()) {
    return BadNormalizer(
        name, absl::StrCat("The observation ", name, " must have width ", width,
                           ", got ", tensor::Describe(x), "."));
  }
  if (tensor::FirstNonFinite(x.detach()) >= 0) {
    return BadNormalizer(
        name, absl::StrCat("The observation ", name, " is not finite."));
  }
  return absl::OkStatus();
}

}  // namespace

struct InferencePolicy::Parts {
  explicit Parts(const PolicySpec& spec_in) : spec(spec_in), layout(spec_in) {}

  const PolicySpec spec;
  const HeadLayout layout;
  NetworkWeights weights;
  ActingPolicy acting;
  std::optional<PackedPolicy> packed;
  // Undefined: observations pass as they are.
  at::Tensor mean;
  at::Tensor deviation;  // sqrt(variance + epsilon).
  double limit = 0;
};

InferencePolicy::InferencePolicy(std::unique_ptr<const Parts> parts)
    : parts_(std::move(parts)) {}

InferencePolicy::~InferencePolicy() = default;

absl::StatusOr<std::shared_ptr<const InferencePolicy>> InferencePolicy::Create(
    const PolicySpec& spec, const tensor::NamedTensors& weights,
    int64_t policy_version, const ObservationNormalizer& normalizer,
    const std::optional<FloorSettings>& floors, InferencePrecision precision) {
  absl::Status status = spec.Validate();
  if (!status.ok()) return status;
  status = ValidateWeights(spec, weights);
  if (!status.ok()) return status;
  if (normalizer.mean.defined() || normalizer.variance.defined()) {
    const int64_t width = spec.observation_width();
    status = ValidateStatistics(normalizer.mean, "mean", width);
    if (!status.ok()) return status;
    status = ValidateStatistics(normalizer.variance, "variance", width);
    if (!status.ok()) return status;
    if (normalizer.variance.lt(0).any().item<bool>() ||
        !(normalizer.epsilon > 0) || !(normalizer.limit > 0)) {
      return BadNormalizer("variance",
                           "The observation variance must not be negative, and "
                           "epsilon and limit must be positive.");
    }
  }

  // Inference tensors: no gradient can ever be asked of them.
  const c10::InferenceMode inference;
  auto parts = std::make_unique<Parts>(spec);
  std::unordered_map<std::string, at::Tensor> copies;
  for (const auto& [name, value] : weights) {
    copies.emplace(name, value.detach().clone());
  }
  parts->weights = PackWeights(
      parts->spec, [&](const std::string& name) { return copies.at(name); });
  if (normalizer.mean.defined()) {
    parts->mean = normalizer.mean.detach().to(at::kFloat).clone();
    parts->deviation = normalizer.variance.detach()
                           .to(at::kDouble)
                           .add(normalizer.epsilon)
                           .sqrt_()
                           .to(at::kFloat);
    parts->limit = normalizer.limit;
  }
  auto origin = std::make_shared<BehaviourOrigin>();
  origin->policy_version = policy_version;
  origin->spec_digest = spec.Digest();
  origin->floors = floors.value_or(spec.Floors());
  ActingPolicy& acting = parts->acting;
  acting.spec = &parts->spec;
  acting.layout = &parts->layout;
  acting.weights = &parts->weights;
  try {
    acting.floors = parts->layout.FloorTensors(origin->floors);
  } catch (const Error& error) {
    return ToStatus(error);
  }
  acting.origin = std::move(origin);
  parts->packed.emplace(parts->spec, parts->layout, parts->weights, precision);
  return std::shared_ptr<const InferencePolicy>(
      new InferencePolicy(std::move(parts)));
}

const PolicySpec& InferencePolicy::spec() const { return parts_->spec; }
const HeadLayout& InferencePolicy::layout() const { return parts_->layout; }
const ActingPolicy& InferencePolicy::acting() const { return parts_->acting; }
const PackedPolicy& InferencePolicy::packed() const { return *parts_->packed; }
InferencePrecision InferencePolicy::precision() const {
  return parts_->packed->precision();
}
const std::string& InferencePolicy::spec_digest() const {
  return parts_->acting.origin->spec_digest;
}
const FloorSettings& InferencePolicy::floors() const {
  return parts_->acting.origin->floors;
}
int64_t InferencePolicy::policy_version() const {
  return parts_->acting.origin->policy_version;
}

ActionSample InferencePolicy::GetAction(const PolicyInputs& inputs,
                                        const Noise& noise,
                                        const SampleOptions& options) const {
  CheckDetached(inputs.observations, "GetAction", "observations");
  PolicyInputs normalized = inputs;
  normalized.observations = Normalize(inputs.observations);
  return policy::GetAction(parts_->acting, *parts_->packed, normalized, noise,
                           options);
}

BehaviourTensor InferencePolicy::GetValue(const PolicyInputs& inputs) const {
  CheckDetached(inputs.observations, "GetValue", "observations");
  PolicyInputs normalized = inputs;
  normalized.observations = Normalize(inputs.observations);
  return policy::GetValue(parts_->acting, *parts_->packed, normalized);
}

BehaviourTensor InferencePolicy::PredictContributions(
    const PolicyInputs& inputs) const {
  CheckDetached(inputs.observations, "PredictContributions", "observations");
  PolicyInputs normalized = inputs;
  normalized.observations = Normalize(inputs.observations);
  return policy::PredictContributions(parts_->acting, normalized);
}

ForwardOutput InferencePolicy::Forward(const ForwardInputs& inputs) const {
  CheckDetached(inputs.observations, "Forward", "observations");
  ForwardInputs normalized = inputs;
  normalized.observations = Normalize(inputs.observations);
  return policy::Forward(parts_->acting, normalized);
}

at::Tensor InferencePolicy::Normalize(const at::Tensor& observations) const {
  // What cannot be normalised is refused by the checks that follow.
  if (!parts_->mean.defined() || !observations.defined() ||
      observations.scalar_type() != at::kFloat || observations.dim() == 0 ||
      observations.size(-1) != parts_->mean.size(0)) {
    return observations;
  }
  const c10::InferenceMode inference;
  // An infinite observation must not be clamped into a finite one.
  tensor::CheckFinite(observations, "observations");
  return observations.sub(parts_->mean)
      .div_(parts_->deviation)
      .clamp_(-parts_->limit, parts_->limit);
}

RecurrentState InferencePolicy::InitialState(int64_t batch) const {
  const std::vector<int64_t> shape = {parts_->spec.lstm_layers, batch,
                                      parts_->spec.hidden_dim};
  return {at::zeros(shape, at::kFloat), at::zeros(shape, at::kFloat)};
}

}  // namespace esper::policy
