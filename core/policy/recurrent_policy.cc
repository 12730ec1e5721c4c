#include "core/policy/recurrent_policy.h"

#include <cmath>
#include <utility>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/full.h"
#include "ATen/ops/linalg_qr.h"
#include "ATen/ops/normal.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/zeros.h"
#include "c10/core/GradMode.h"
#include "core/policy/parameter_list.h"
#include "core/policy/policy_io.h"

namespace esper::policy {
namespace {

constexpr double kEmbeddingDeviation = 0.02;
// Apart from the initialisation's stream.
constexpr uint64_t kDropoutStream = 0x9E3779B97F4A7C15u;

// Rows orthogonal if there are at most as many as columns, else columns; all of
// length `gain`. QR of a normal matrix, signs fixed so that the result is
// uniform over such matrices.
at::Tensor Orthogonal(at::IntArrayRef shape, double gain,
                      const at::Generator& generator) {
  const int64_t rows = shape[0];
  const int64_t columns = shape[1];
  const bool wide = rows < columns;
  const at::Tensor normal =
      at::empty({wide ? columns : rows, wide ? rows : columns}, at::kFloat)
          .normal_(0, 1, generator);
  const auto [q, r] = at::linalg_qr(normal, "reduced");
  at::Tensor signs = r.diagonal().sign();
  signs.masked_fill_(signs.eq(0), 1);
  const at::Tensor result = q.mul(signs).mul_(gain);
  return (wide ? result.t() : result).contiguous();
}

at::Tensor Initial(const ParameterInfo& info, const PolicySpec& spec,
                   const at::Generator& generator) {
  switch (info.kind) {
    case ParameterKind::kOrthogonal:
      return Orthogonal(info.shape, info.gain, generator);
    case ParameterKind::kOne:
      return at::ones(info.shape, at::kFloat);
    case ParameterKind::kEmbedding:
      return at::empty(info.shape, at::kFloat)
          .normal_(0, kEmbeddingDeviation, generator);
    case ParameterKind::kNullIndex:
      return at::full({}, spec.categorical->cardinality, at::kLong);
    case ParameterKind::kLstmBias: {
      at::Tensor bias = at::zeros(info.shape, at::kFloat);
      const int64_t hidden = info.shape[0] / 4;
      bias.narrow(0, hidden, hidden)
          .fill_(1 + std::log(static_cast<double>(spec.lstm_layers)));
      return bias;
    }
    case ParameterKind::kLogStd:
      return at::full(info.shape, info.gain, at::kFloat);
    case ParameterKind::kZero:
      break;
  }
  return at::zeros(info.shape, at::kFloat);
}

// The module that holds the parameter of a dotted name, made on the way, and
// the parameter's own name.
std::pair<torch::nn::Module*, std::string> Place(torch::nn::Module* module,
                                                 const std::string& name) {
  size_t begin = 0;
  for (size_t dot = name.find('.'); dot != std::string::npos;
       dot = name.find('.', begin)) {
    const std::string part = name.substr(begin, dot - begin);
    auto children = module->named_children();
    module = children.contains(part)
                 ? children[part].get()
                 : module
                       ->register_module(
                           part, std::make_shared<torch::nn::Module>(part))
                       .get();
    begin = dot + 1;
  }
  return {module, name.substr(begin)};
}

}  // namespace

RecurrentPolicy::RecurrentPolicy(const PolicySpec& spec, uint64_t init_seed)
    : torch::nn::Module("RecurrentPolicy"),
      spec_(spec),
      layout_(spec),
      spec_digest_(spec.Digest()),
      dropout_generator_(
          at::make_generator<at::CPUGeneratorImpl>(init_seed ^ kDropoutStream)),
      warned_frozen_(spec.heads.size()),
      warned_zero_(spec.heads.size()) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(init_seed);
  const c10::NoGradGuard no_grad;
  for (const ParameterInfo& info : ListParameters(spec)) {
    const auto [module, leaf] = Place(this, info.name);
    at::Tensor value = Initial(info, spec, generator);
    value = info.kind == ParameterKind::kNullIndex
                ? module->register_buffer(leaf, value)
                : module->register_parameter(leaf, value);
    entries_.emplace_back(info.name, value);
    by_name_.emplace(info.name, value);
  }
}

at::Tensor RecurrentPolicy::Parameter(const std::string& name) const {
  const auto it = by_name_.find(name);
  TORCH_CHECK(it != by_name_.end(), "The policy has no parameter ", name);
  return it->second;
}

NetworkWeights RecurrentPolicy::Weights() const {
  return TrainingWeights(
      spec_, [this](const std::string& name) { return Parameter(name); },
      precision_);
}

tensor::NamedTensors RecurrentPolicy::StateDict() const {
  const c10::NoGradGuard no_grad;
  tensor::NamedTensors state;
  for (const auto& [name, value] : entries_) {
    state.emplace_back(name, value.detach().clone());
  }
  return state;
}

absl::Status RecurrentPolicy::LoadStateDict(const tensor::NamedTensors& state) {
  absl::Status status = ValidateWeights(spec_, state);
  if (!status.ok()) return status;
  const c10::NoGradGuard no_grad;
  for (const auto& [name, value] : state) Parameter(name).copy_(value);
  return absl::OkStatus();
}

std::vector<at::Tensor> RecurrentPolicy::HeadParameters(
    const std::string& head) const {
  const std::string prefix = head + "_head.";
  std::vector<at::Tensor> result;
  for (const auto& [name, value] : entries_) {
    if (name.compare(0, prefix.size(), prefix) == 0) result.push_back(value);
  }
  return result;
}

RecurrentState RecurrentPolicy::InitialState(int64_t batch) const {
  const std::vector<int64_t> shape = {spec_.lstm_layers, batch,
                                      spec_.hidden_dim};
  return {at::zeros(shape, at::kFloat), at::zeros(shape, at::kFloat)};
}

void RecurrentPolicy::SeedDropout(uint64_t seed) {
  dropout_generator_.set_current_seed(seed);
}

bool RecurrentPolicy::FirstFrozenWarning(int64_t head) const {
  return !warned_frozen_[head].exchange(true, std::memory_order_relaxed);
}

bool RecurrentPolicy::FirstZeroGradientWarning(int64_t head) const {
  return !warned_zero_[head].exchange(true, std::memory_order_relaxed);
}

}  // namespace esper::policy
