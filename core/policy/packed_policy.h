#ifndef ESPER_CORE_POLICY_PACKED_POLICY_H_
#define ESPER_CORE_POLICY_PACKED_POLICY_H_

#include <cstdint>
#include <vector>

#include "core/policy/head_layout.h"
#include "core/policy/inference_precision.h"
#include "core/policy/network_forward.h"
#include "core/policy/packed_network.h"
#include "core/policy/packed_sampler.h"
#include "core/policy/policy_spec.h"

namespace esper::policy {

// What one step of some rows gives. Keep one per thread and use it again: its
// buffers grow to the largest step and stay.
struct ActingResult {
  NetworkResult network;  // Values and the next state.
  Choices choices;
};

// A published policy as plain numbers: the network and the sampler, without
// LibTorch's operators in between. Immutable; safe from any thread.
class PackedPolicy {
 public:
  // `spec` and `layout` must outlive it; `weights` are copied.
  PackedPolicy(const PolicySpec& spec, const HeadLayout& layout,
               const NetworkWeights& weights, InferencePrecision precision,
               const PackedKernels& kernels = BestKernels());

  InferencePrecision precision() const { return network_.precision(); }

  // Acts for every row. Logits, means and deviations of `choices` are filled in
  // here; masks, noise and the reported head are the caller's. Throws
  // NonFiniteError (input or logits), InvalidArgumentError
  // (BAD_BLUEPRINT_INDEX), EmptyMaskError, with the row.
  void Act(const NetworkStep& step, ChoiceInputs choices,
           const FloorSettings& floors, ActingResult* result) const;

  // Runs the network on zeros: once, and, where the first step of a size is
  // slow, for every power of two up to `max_rows` and the one above. Called
  // before a version acts.
  void WarmUp(int64_t max_rows) const;

  // V of every row, `network.values`. Throws as `Act` does for its inputs.
  void Value(const NetworkStep& step, ActingResult* result) const;

 private:
  void CheckInputs(const NetworkStep& step) const;
  bool InputsAreFine(const NetworkStep& step) const;

  const PolicySpec& spec_;
  const int64_t observation_width_, positions_, cardinality_;
  const PackedNetwork network_;
  const PackedSampler sampler_;
  std::vector<float> log_std_;  // [C].
};

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_PACKED_POLICY_H_
