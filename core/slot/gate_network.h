#ifndef ESPER_CORE_SLOT_GATE_NETWORK_H_
#define ESPER_CORE_SLOT_GATE_NETWORK_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "core/slot/topology.h"
#include "torch/nn/module.h"
#include "torch/nn/modules/linear.h"

namespace esper::slot {

// Learns how much of a seed each sample gets: global mean over space or time,
// Linear(C, m), ReLU, Linear(m, 1), sigmoid, with m = max(8, C / 4). It has
// m (C + 2) + 1 parameters, named gate.0.* and gate.2.*, and default
// initialisation, so it starts near one half.
//
// Thread safety: `forward` changes nothing and may run on several threads.
class GateNetwork : public torch::nn::Module {
 public:
  struct Options {
    int64_t channels = 0;  // C, > 0.
    Topology topology = Topology::kCnn;
    int64_t total_steps = 10;  // Of the blend it was made for, > 0; provenance.
  };

  // INVALID_ARGUMENT if channels or total_steps are not positive.
  static absl::StatusOr<std::shared_ptr<GateNetwork>> Create(
      const Options& options);

  // input: floating [B, C, H, W] (cnn) or [B, T, C] (transformer); what the
  // seed received. Returns [B, 1, 1, 1] or [B, 1, 1] in (0, 1); grad to
  // parameters and input. ShapeError if the rank or C is another.
  at::Tensor forward(const at::Tensor& input) const;

  // Sets the last layer to weight 0 and bias 4, so that the gate is about
  // 0.982 for every input: joining a blend in progress then hardly moves the
  // output.
  void OpenNearly();

  int64_t channels() const { return options_.channels; }
  int64_t hidden() const;
  int64_t total_steps() const { return options_.total_steps; }

 private:
  explicit GateNetwork(const Options& options);

  const Options options_;
  torch::nn::Linear first_;
  torch::nn::Linear last_;
};

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_GATE_NETWORK_H_
