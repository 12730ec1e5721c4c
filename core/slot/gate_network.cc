#include "core/slot/gate_network.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/error.h"
#include "torch/nn/modules/activation.h"
#include "torch/nn/modules/container/sequential.h"

namespace esper::slot {

absl::StatusOr<std::shared_ptr<GateNetwork>> GateNetwork::Create(
    const Options& options) {
  if (options.channels <= 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "A gate network needs channels > 0, got ", options.channels, "."));
  }
  if (options.total_steps <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("A gate network needs total_steps > 0, got ",
                     options.total_steps, "."));
  }
  return std::shared_ptr<GateNetwork>(new GateNetwork(options));
}

GateNetwork::GateNetwork(const Options& options)
    : options_(options),
      first_(torch::nn::LinearOptions(options.channels, hidden())),
      last_(torch::nn::LinearOptions(hidden(), 1)) {
  register_module("gate", torch::nn::Sequential(first_, torch::nn::ReLU(),
                                                last_, torch::nn::Sigmoid()));
}

int64_t GateNetwork::hidden() const {
  return std::max<int64_t>(8, options_.channels / 4);
}

at::Tensor GateNetwork::forward(const at::Tensor& input) const {
  const bool cnn = options_.topology == Topology::kCnn;
  if (!input.defined() || input.dim() != FeatureRank(options_.topology) ||
      input.size(cnn ? 1 : 2) != options_.channels) {
    throw ShapeError(
        "gate input",
        absl::StrCat(cnn ? "[B, C, H, W]" : "[B, T, C]",
                     " with C = ", options_.channels),
        input.defined()
            ? absl::StrCat("[", absl::StrJoin(input.sizes(), ", "), "]")
            : "an undefined tensor");
  }
  const at::Tensor pooled =
      cnn ? at::mean(input, {2, 3}) : at::mean(input, at::IntArrayRef{1});
  const at::Tensor hidden =
      at::relu(at::linear(pooled, first_->weight, first_->bias));
  const at::Tensor gate =
      at::sigmoid(at::linear(hidden, last_->weight, last_->bias));
  return cnn ? gate.view({-1, 1, 1, 1}) : gate.view({-1, 1, 1});
}

void GateNetwork::OpenNearly() {
  const at::NoGradGuard no_grad;
  last_->weight.zero_();
  last_->bias.fill_(4.0);
}

}  // namespace esper::slot
