#ifndef ESPER_CORE_POLICY_RECURRENT_POLICY_H_
#define ESPER_CORE_POLICY_RECURRENT_POLICY_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "ATen/core/Generator.h"
#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "core/policy/head_layout.h"
#include "core/policy/network_forward.h"
#include "core/policy/policy_spec.h"
#include "core/policy/recurrent_state.h"
#include "core/policy/training_precision.h"
#include "core/tensor/safetensors.h"
#include "torch/nn/module.h"

namespace esper::policy {

// The trained network: embedding, feature layer, residual LSTM stack and the
// output networks. Parameters carry upstream's state-dict names
// ("lstm.layers.0.weight_hh_l0"), so that its checkpoints load.
//
// Orthogonal initialisation drawn from a seed of its own; no global generator
// is read or changed. All parameters are float32 on the host.
//
// Thread safety: const methods may run concurrently with each other, not with
// anything that writes parameters.
class RecurrentPolicy : public torch::nn::Module {
 public:
  // `spec` must be valid. In training mode, as modules are.
  RecurrentPolicy(const PolicySpec& spec, uint64_t init_seed);

  const PolicySpec& spec() const { return spec_; }
  const HeadLayout& layout() const { return layout_; }
  const std::string& spec_digest() const { return spec_digest_; }

  // The parameters as the forward functions read them, with the precision of
  // their products. Valid until a parameter is replaced.
  NetworkWeights Weights() const;
  // Of the products from here on; kFp32 at first.
  void SetPrecision(TrainingPrecision precision) { precision_ = precision; }
  TrainingPrecision precision() const { return precision_; }

  // Every state-dict entry, buffers included, in upstream's order: copies
  // without gradient.
  tensor::NamedTensors StateDict() const;
  // Copies values into the parameters; keeps requires_grad. INVALID_ARGUMENT
  // (BAD_SHAPE, NONFINITE_INPUT), naming the entry, for missing, surplus,
  // misshapen or non-finite entries; then nothing is changed.
  absl::Status LoadStateDict(const tensor::NamedTensors& state);

  // The parameter itself; throws if there is none of that name.
  at::Tensor Parameter(const std::string& name) const;
  // Parameters of one head's own network, "<name>_head.*".
  std::vector<at::Tensor> HeadParameters(const std::string& head) const;

  // Zeros [L, B, H] twice; plain tensors that may enter training.
  RecurrentState InitialState(int64_t batch) const;

  // Dropout of the contribution predictor is active in training mode only, and
  // draws from the network's own generator.
  void SeedDropout(uint64_t seed);
  at::Generator dropout_generator() const { return dropout_generator_; }

  // True once per head over the life of the network, for warnings that must
  // not repeat: that it is frozen, that its gradient is all zero.
  bool FirstFrozenWarning(int64_t head) const;
  bool FirstZeroGradientWarning(int64_t head) const;

 private:
  const PolicySpec spec_;
  const HeadLayout layout_;
  const std::string spec_digest_;
  TrainingPrecision precision_ = TrainingPrecision::kFp32;
  // In state-dict order, the buffer included; the tensors are the parameters.
  tensor::NamedTensors entries_;
  std::unordered_map<std::string, at::Tensor> by_name_;
  at::Generator dropout_generator_;
  mutable std::vector<std::atomic<bool>> warned_frozen_;
  mutable std::vector<std::atomic<bool>> warned_zero_;
};

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_RECURRENT_POLICY_H_
