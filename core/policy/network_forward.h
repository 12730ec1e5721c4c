#ifndef ESPER_CORE_POLICY_NETWORK_FORWARD_H_
#define ESPER_CORE_POLICY_NETWORK_FORWARD_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ATen/core/Generator.h"
#include "ATen/core/Tensor.h"
#include "core/policy/policy_spec.h"
#include "core/policy/recurrent_state.h"
#include "core/policy/training_linear.h"
#include "core/policy/training_precision.h"

// The network as pure functions of its weights, one implementation for acting
// and for training: acting packs the weights once and runs without a graph,
// training packs them per call and gets gradients. N counts rows.
namespace esper::policy {

struct LinearWeights {
  at::Tensor weight;  // float32 [out, in].
  at::Tensor bias;    // float32 [out].
  // Of the product in training; the output layers' stays kFp32.
  TrainingPrecision precision = TrainingPrecision::kFp32;
};
struct LayerNormWeights {
  at::Tensor weight, bias;  // float32 [width].
};
struct LstmLayerWeights {
  at::Tensor weight_ih, weight_hh;  // float32 [4H, H], gate rows i, f, g, o.
  at::Tensor bias;                  // float32 [4H]: both biases added.
  LayerNormWeights norm;
  TrainingPrecision precision = TrainingPrecision::kFp32;
};
// Linear, LayerNorm, ReLU, Linear, LayerNorm, ReLU, Linear, ReLU, Linear. The
// first layer of V lies in `first_layers`.
struct ValueNetWeights {
  LinearWeights first;  // Undefined for V.
  LayerNormWeights first_norm;
  LinearWeights second;
  LayerNormWeights second_norm;
  LinearWeights third, last;
};

struct NetworkWeights {
  at::Tensor embedding;  // float32 [cardinality + 1, E]; undefined if none.
  LinearWeights feature;
  LayerNormWeights feature_norm;
  LinearWeights input_projection;  // Undefined if F = H.
  std::vector<LstmLayerWeights> lstm;

  // The hidden layers that read the trunk output, joined along their rows: the
  // first one of each head in storage order, then that of V. Acting only.
  LinearWeights first_layers;
  // The same layers apart, as `first_widths` has them; those of width 0 are
  // left out. Training only: joining would copy weights and gradients.
  LinearFan first_fan;
  // Rows of each in `first_layers`, per head, then V; 0 for a head that has no
  // hidden layer.
  std::vector<int64_t> first_widths;
  // Per head: the layers after the first hidden one, or the only layer.
  std::vector<std::vector<LinearWeights>> head_layers;
  std::vector<bool> gaussian;  // Per head: what it gives are means.
  // float32 [C]: log standard deviations of the Gaussian heads; undefined
  // without one.
  at::Tensor log_std;
  ValueNetWeights value;
  ValueNetWeights q;  // Undefined without a Q.
  // Contribution predictor; undefined if there is none.
  LinearWeights contribution_first;
  LayerNormWeights contribution_norm;
  LinearWeights contribution_second, contribution_last;
};

// Finds a state-dict entry by name.
using WeightLookup = std::function<at::Tensor(const std::string&)>;

// Packs the entries of a state dict for acting. `lookup` must know every
// parameter of `spec` in its right shape.
NetworkWeights PackWeights(const PolicySpec& spec, const WeightLookup& lookup);
// The same for training: the tensors are the parameters themselves.
NetworkWeights TrainingWeights(const PolicySpec& spec,
                               const WeightLookup& lookup,
                               TrainingPrecision precision);

struct TrunkOutput {
  at::Tensor embeddings;  // float32 [B, T, S * E]; undefined if none.
  at::Tensor features;    // float32 [B, T, F].
  at::Tensor trunk;       // float32 [B, T, H]: what every output network reads.
  RecurrentState state;   // After the last step.
};

// Embedding, feature layer and LSTM stack over whole sequences.
//   observations: float32 [B, T, D].
//   categorical:  int64 [B, T, S], -1 or in range; undefined if none.
//   state:        before step 0; undefined: zeros.
//   reset:        bool [B, T]; where true, the state of the row is zeroed
//                 before that step and no gradient crosses. Undefined: never.
TrunkOutput Trunk(const NetworkWeights& weights, const at::Tensor& observations,
                  const at::Tensor& categorical, const RecurrentState& state,
                  const at::Tensor& reset = {});

struct HeadOutput {
  at::Tensor logits;  // float32 [N, A], packed, unmasked.
  // float32 [N, C]: means of the Gaussian heads; undefined without one.
  at::Tensor means;
  at::Tensor values;  // float32 [N].
};
// trunk: float32 [N, H].
HeadOutput Heads(const NetworkWeights& weights, const at::Tensor& trunk);
// V alone, float32 [N].
at::Tensor Value(const NetworkWeights& weights, const at::Tensor& trunk);

// Q of given choices, float32 [N]; the trunk is detached. choices: int64 [N].
at::Tensor QValue(const NetworkWeights& weights, const at::Tensor& trunk,
                  const at::Tensor& choices);
// Q of every choice, float32 [N, choices]; the trunk is detached.
at::Tensor QAllChoices(const NetworkWeights& weights, const at::Tensor& trunk);

// Contribution predictor, float32 [N, S], accuracy points. `dropout`: draws
// the mask of rate 0.1 if given.
at::Tensor Contributions(const NetworkWeights& weights, const at::Tensor& trunk,
                         bool stop_gradient,
                         std::optional<at::Generator> dropout = std::nullopt);

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_NETWORK_FORWARD_H_
