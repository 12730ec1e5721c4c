#ifndef ESPER_CORE_POLICY_SAMPLER_H_
#define ESPER_CORE_POLICY_SAMPLER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "ATen/core/Generator.h"
#include "ATen/core/Tensor.h"
#include "core/policy/counter_noise.h"
#include "core/policy/gradient_contract.h"
#include "core/policy/head_layout.h"
#include "core/policy/policy_spec.h"
#include "core/policy/recurrent_state.h"

namespace esper::policy {

struct NetworkWeights;  // core/policy/network_forward.h

// One step of B independent rows, on the host. None may require a gradient.
struct PolicyInputs {
  at::Tensor observations;  // float32 [B, D] or [B, 1, D]: as the network
                            // sees them.
  at::Tensor categorical;   // int64 [B, S] or [B, 1, S]; undefined if the
                            // specification has none.
  RecurrentState state;     // Undefined: zeros.
  // bool [B, A] or [B, 1, A], heads packed in storage order, true = allowed;
  // undefined: all allowed.
  at::Tensor action_masks;
  // bool [B, driver size, size] of the conditional head, replacing its mask;
  // undefined: its mask holds under every choice.
  at::Tensor conditional_mask;
};

// Where the randomness of a call comes from.
struct NoNoise {};  // The most likely choice of every head, or its mean.
struct GivenNoise {
  at::Tensor exponential;  // float32 [B, A], packed, > 0: draws of Exp(1).
  // float32 [B, C]: standard normal draws; undefined without Gaussian heads.
  at::Tensor normal = {};
};
// Draws of Exp(1), or standard normal ones for a Gaussian head, a tensor
// [B, size] per head in sampling order.
struct GeneratorNoise {
  at::Generator generator;
};
struct CounterKeys {
  std::vector<NoiseKey> keys;  // One per row.
};
using Noise = std::variant<NoNoise, GivenNoise, GeneratorNoise, CounterKeys>;

struct SampleOptions {
  // Absent: the specification's.
  std::optional<FloorSettings> floors;
  bool driver_logits = false;  // Also masked logits of the driver.
  bool q_values = false;       // Also Q of the driver choice taken.
};

// What acting gives: numbers that can be stored, and nothing to train on. All
// tensors are inference tensors on the host.
struct ActionSample {
  at::Tensor actions;  // int64 [B, K], storage order; 0 for a Gaussian head.
  // float32 [B, C]: values of the Gaussian heads in storage order, 0 for one
  // that does not matter; undefined without Gaussian heads.
  at::Tensor continuous_actions;
  BehaviourTensor log_probs;  // float32 [B, K]: of the actions, under the masks
                              // and floors in force, nats; a log density for a
                              // Gaussian head; 0 for a head that does not
                              // matter.
  BehaviourTensor entropies;  // float32 [B, K]: normalised to [0, 1]; the
                              // differential entropy of a Gaussian head, nats.
  BehaviourTensor values;  // float32 [B]: V(s), in the units V is trained in.
  // float32 [B, size] of the head whose choice Q takes (of the first sampled
  // categorical head if there is no Q): masked, before the floor.
  BehaviourTensor driver_logits;
  BehaviourTensor q_values;   // float32 [B].
  RecurrentState next_state;  // float32 [L, B, H]: after the step.
  int64_t policy_version = 0;
  std::string spec_digest;
};

// The network and everything constant about it that acting reads. A view: all
// pointees must outlive the calls.
struct ActingPolicy {
  const PolicySpec* spec = nullptr;
  const HeadLayout* layout = nullptr;
  const NetworkWeights* weights = nullptr;  // Without gradient.
  // Of the specification's own floors.
  std::shared_ptr<const BehaviourOrigin> origin;
  // HeadLayout::FloorTensors of the same floors.
  std::vector<at::Tensor> floors;
};

// Chooses an action for each row: heads in sampling order, each under the mask
// that the choices before it leave, as argmax of p / e over Exp(1) noise e;
// Gaussian heads as mean + deviation * standard normal noise. The generator is
// touched only by GeneratorNoise.
//
// Re-entrant. Runs in inference mode. Throws, in this order and before any
// state could change:
//   GradientContractError  an input requires a gradient (INFERENCE_ONLY);
//   ShapeError             shape, dtype or device (BAD_SHAPE);
//   NonFiniteError         NaN or infinity in observation or state, with row;
//   InvalidArgumentError   BAD_BLUEPRINT_INDEX, BAD_FLOOR;
//   EmptyMaskError         a head that matters has no allowed entry, with row;
//   NonFiniteError         NONFINITE_LOGITS, from finite input.
ActionSample GetAction(const ActingPolicy& policy, const PolicyInputs& inputs,
                       const Noise& noise, const SampleOptions& options = {});

// V of one step, float32 [B]. Reads observations, categorical and state only;
// errors as in `GetAction`.
BehaviourTensor GetValue(const ActingPolicy& policy,
                         const PolicyInputs& inputs);

// Contribution predictor of one step, float32 [B, S]. Errors as in `GetValue`;
// INVALID_ARGUMENT if the network has none.
BehaviourTensor PredictContributions(const ActingPolicy& policy,
                                     const PolicyInputs& inputs);

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_SAMPLER_H_
