#ifndef ESPER_CORE_POLICY_PACKED_NETWORK_H_
#define ESPER_CORE_POLICY_PACKED_NETWORK_H_

#include <cstdint>
#include <vector>

#include "core/policy/inference_precision.h"
#include "core/policy/network_forward.h"
#include "core/policy/packed_linear.h"
#include "core/policy/policy_spec.h"

namespace esper::policy {

// One step of `rows` rows as plain numbers.
struct NetworkStep {
  int64_t rows = 0;
  const float* observations = nullptr;   // [rows, D], as the network sees them.
  const int64_t* categorical = nullptr;  // [rows, S], -1 or in range, or null.
  // State of each row: pointers to [L, H] each, layers `state_stride` apart; a
  // null pointer stands for zeros.
  const float* const* h = nullptr;
  const float* const* c = nullptr;
  int64_t state_stride = 0;
};

// What one step gives. Grows to the largest step it has seen and is meant to be
// used again; one thread at a time.
struct NetworkResult {
  std::vector<float> logits;  // [rows, A], packed, unmasked.
  std::vector<float> means;   // [rows, C] of the Gaussian heads.
  std::vector<float> values;  // [rows].
  // [rows, stride]: what every output network reads in the first H of each.
  std::vector<float> trunk;
  int64_t trunk_stride = 0;
  std::vector<float> h;  // [rows, L, H]: after the step.
  std::vector<float> c;

 private:
  friend class PackedNetwork;
  std::vector<float> input, wide, first, a, b, scratch;
};

// The network of a published version, laid out for acting: no graph, no
// tensors, no allocation once its buffers have grown. What a row gives does not
// depend on the rows beside it, except for bf16 products that oneDNN computes.
// Immutable; safe from any thread.
class PackedNetwork {
 public:
  // `weights` without gradient, of `spec`. Copies.
  PackedNetwork(const PolicySpec& spec, const NetworkWeights& weights,
                InferencePrecision precision,
                const PackedKernels& kernels = BestKernels());

  // Trunk, heads and V. Inputs must be finite and in range.
  void Run(const NetworkStep& step, NetworkResult* result) const;
  // Trunk and V alone; `logits` and `means` are left as they are.
  void RunValue(const NetworkStep& step, NetworkResult* result) const;
  // Trunk alone.
  void RunTrunk(const NetworkStep& step, NetworkResult* result) const;

  // Whether the first step of every number of rows is slow.
  bool prepares_sizes() const { return value_first_.prepares_sizes(); }
  InferencePrecision precision() const { return precision_; }
  const PackedKernels& kernels() const { return *kernels_; }

 private:
  struct Norm {
    std::vector<float> weight, bias;
  };
  struct Layer {
    PackedLinear gates;  // Of x and h side by side.
    Norm norm;
  };
  struct Head {
    int64_t first_offset = 0;  // Column in the joined first layers.
    bool reads_trunk = false;  // No hidden layer.
    std::vector<PackedLinear> layers;
    bool gaussian = false;
    int64_t offset = 0;  // On the packed axis of logits, or of means.
    int64_t size = 0;
  };

  Norm PackNorm(const LayerNormWeights& weights) const;
  PackedLinear Pack(const LinearWeights& weights, bool output = false) const;
  void Apply(const PackedLinear& layer, const float* x, int64_t ldx,
             int64_t rows, float* y, int64_t ldy, bool relu,
             NetworkResult* result) const;
  void Normalize(const Norm& norm, const float* x, int64_t ldx, int64_t rows,
                 bool relu, float* y, int64_t ldy,
                 const float* residual = nullptr, int64_t ldr = 0) const;
  void Embed(const NetworkStep& step, NetworkResult* result) const;
  void RunLayer(const NetworkStep& step, int64_t l,
                NetworkResult* result) const;
  void RunHeads(int64_t rows, NetworkResult* result) const;
  void RunHead(const Head& head, int64_t rows, NetworkResult* result) const;
  void RunV(int64_t rows, NetworkResult* result) const;

  const PackedKernels* const kernels_;
  const InferencePrecision precision_;
  const int64_t observation_width_, positions_, hidden_;
  int64_t embedding_width_ = 0;   // Of one position.
  int64_t null_index_ = 0;        // Embedding of -1.
  std::vector<float> embedding_;  // [cardinality + 1, width].
  PackedLinear feature_, input_projection_;
  Norm feature_norm_;
  std::vector<Layer> layers_;
  PackedLinear heads_first_;  // Of all heads side by side.
  std::vector<Head> heads_;
  int64_t logits_width_ = 0, means_width_ = 0;
  Norm value_first_norm_, value_second_norm_;
  PackedLinear value_first_, value_second_, value_third_, value_last_;
  int64_t widest_ = 0;  // Padded outputs of any layer.
};

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_PACKED_NETWORK_H_
