#ifndef ESPER_CORE_HOST_TRANSFORMER_LAYERS_H_
#define ESPER_CORE_HOST_TRANSFORMER_LAYERS_H_

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>

#include "core/host/layers.h"

// What the transformer host and its seeds are made of besides layers.h.
namespace esper::host {

// Layer normalisation over the last axis, epsilon 1e-5, starting at scale 1 and
// bias 0. Parameters: weight and bias float [d].
class LayerNormLayer : public torch::nn::Module {
 public:
  explicit LayerNormLayer(int64_t width);

  // x: float [..., d]. Returns the same shape.
  at::Tensor Apply(const at::Tensor& x) const;

 private:
  at::Tensor weight_;
  at::Tensor bias_;
};

// A table of rows, starting at N(0, 1). Parameter: weight float [rows, d].
class EmbeddingLayer : public torch::nn::Module {
 public:
  EmbeddingLayer(int64_t rows, int64_t width, at::Generator& generator);

  // indices: int64 [...], each in [0, rows). Returns float [..., d].
  at::Tensor Apply(const at::Tensor& indices) const;

  const at::Tensor& weight() const { return weight_; }

 private:
  at::Tensor weight_;
};

// Dropout whose masks come from a generator of its own, so that they neither
// move nor follow a global one: equal seeds and equal calls give equal masks.
// Not thread safe.
class SeededDropout {
 public:
  // probability: of an element to become 0, in [0, 1).
  SeededDropout(double probability, uint64_t seed)
      : probability_(probability), seed_(seed) {}

  double probability() const { return probability_; }

  // Restarts the sequence of masks.
  void Seed(uint64_t seed);

  // Zeroes elements at random and divides the others by 1 - probability. `x`
  // itself if the probability is 0. The sequence restarts when x is on another
  // device than the one before.
  at::Tensor Apply(const at::Tensor& x);

 private:
  const double probability_;
  uint64_t seed_;
  at::Generator generator_;  // Undefined until first used.
};

// Scaled dot-product attention in which a position sees itself and what is
// before it.
//   qkv: float [B, T, 3 d], laid out as (3, heads, d / heads) in the last axis.
//   dropout: of attention weights; null for none.
// Returns the heads side by side, [B, T, d]; grad to qkv.
at::Tensor CausalAttention(const at::Tensor& qkv, int64_t heads,
                           SeededDropout* dropout = nullptr);

// x + second(gelu(first(x))), with GELU in its exact form. x: float [..., d].
at::Tensor ResidualFeedForward(const at::Tensor& x, const LinearLayer& first,
                               const LinearLayer& second);

// The same value and, but for rounding, the same gradients; but the graph keeps
// only x and the parameters, and backward computes the wide activations anew:
// of 2 e + 1 times x's size, e being the expansion, only x itself is held.
// Both layers have a bias. Gradients can be differentiated again.
at::Tensor CheckpointedFeedForward(const at::Tensor& x,
                                   const LinearLayer& first,
                                   const LinearLayer& second);

}  // namespace esper::host
#endif  // ESPER_CORE_HOST_TRANSFORMER_LAYERS_H_
