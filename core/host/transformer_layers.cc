#include "core/host/transformer_layers.h"

#include <ATen/Context.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace esper::host {
namespace {

constexpr double kEpsilon = 1e-5;

// A generator for tensors on `device` that no one else draws from.
at::Generator PrivateGenerator(at::Device device, uint64_t seed) {
  if (device.is_cpu()) return MakeGenerator(seed);
  at::Generator generator =
      at::globalContext().defaultGenerator(device).clone();
  generator.set_current_seed(seed);
  return generator;
}

// Attention with its weights spelled out, since the fused kernels draw their
// dropout from a global generator. q, k, v: float [B, heads, T, d / heads].
at::Tensor DroppedAttention(const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, SeededDropout& dropout) {
  const int64_t t = q.size(2);
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(3)));
  const at::Tensor future =
      at::ones({t, t}, at::TensorOptions(at::kBool).device(q.device())).triu(1);
  const at::Tensor scores =
      at::matmul(q, k.transpose(-2, -1))
          .mul(scale)
          .masked_fill(future, -std::numeric_limits<double>::infinity());
  return at::matmul(dropout.Apply(at::softmax(scores, -1)), v);
}

at::Tensor FeedForward(const at::Tensor& x, const at::Tensor& w1,
                       const at::Tensor& b1, const at::Tensor& w2,
                       const at::Tensor& b2) {
  return x + at::linear(at::gelu(at::linear(x, w1, b1)), w2, b2);
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// y = x + W2 gelu(W1 x + b1) + b2 with its derivatives written out. They are
// made of differentiable operations, hence can be differentiated themselves.
class FeedForwardNode : public torch::autograd::Function<FeedForwardNode> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x,
                            const at::Tensor& w1, const at::Tensor& b1,
                            const at::Tensor& w2, const at::Tensor& b2) {
    ctx->save_for_backward({x, w1, b1, w2});
    return FeedForward(x, w1, b1, w2, b2);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &w1 = saved[1], &b1 = saved[2],
                     &w2 = saved[3];
    const auto needs = [ctx](size_t i) { return ctx->needs_input_grad(i); };
    const auto rows = [](const at::Tensor& t) {
      return t.reshape({-1, t.size(-1)});
    };
    const at::Tensor& dy = grads[0];
    variable_list result(5);
    const at::Tensor hidden = at::linear(x, w1, b1);
    if (needs(3)) result[3] = rows(dy).t().matmul(rows(at::gelu(hidden)));
    if (needs(4)) result[4] = rows(dy).sum(0);
    if (!needs(0) && !needs(1) && !needs(2)) return result;
    const at::Tensor dhidden = at::gelu_backward(dy.matmul(w2), hidden);
    if (needs(0)) result[0] = dy + dhidden.matmul(w1);
    if (needs(1)) result[1] = rows(dhidden).t().matmul(rows(x));
    if (needs(2)) result[2] = rows(dhidden).sum(0);
    return result;
  }
};

}  // namespace

LayerNormLayer::LayerNormLayer(int64_t width) {
  weight_ = register_parameter("weight", at::ones({width}));
  bias_ = register_parameter("bias", at::zeros({width}));
}

at::Tensor LayerNormLayer::Apply(const at::Tensor& x) const {
  return at::layer_norm(x, weight_.sizes(), weight_, bias_, kEpsilon);
}

EmbeddingLayer::EmbeddingLayer(int64_t rows, int64_t width,
                               at::Generator& generator) {
  at::Tensor weight = at::empty({rows, width}, at::kFloat);
  weight.normal_(0, 1, generator);
  weight_ = register_parameter("weight", std::move(weight));
}

at::Tensor EmbeddingLayer::Apply(const at::Tensor& indices) const {
  return at::embedding(weight_, indices);
}

void SeededDropout::Seed(uint64_t seed) {
  seed_ = seed;
  generator_ = at::Generator();
}

at::Tensor SeededDropout::Apply(const at::Tensor& x) {
  if (probability_ == 0) return x;
  if (!generator_.defined() || generator_.device() != x.device()) {
    generator_ = PrivateGenerator(x.device(), seed_);
  }
  const double keep = 1 - probability_;
  at::Tensor mask = at::empty(x.sizes(), x.options().requires_grad(false));
  mask.bernoulli_(keep, generator_).div_(keep);
  return x * mask;
}

at::Tensor CausalAttention(const at::Tensor& qkv, int64_t heads,
                           SeededDropout* dropout) {
  const int64_t b = qkv.size(0), t = qkv.size(1), d = qkv.size(2) / 3;
  const std::vector<at::Tensor> parts = qkv.reshape({b, t, 3, heads, d / heads})
                                            .permute({2, 0, 3, 1, 4})
                                            .unbind();
  const at::Tensor &q = parts[0], &k = parts[1], &v = parts[2];
  const at::Tensor mixed =
      dropout != nullptr && dropout->probability() > 0
          ? DroppedAttention(q, k, v, *dropout)
          : at::scaled_dot_product_attention(q, k, v, /*attn_mask=*/{},
                                             /*dropout_p=*/0.0,
                                             /*is_causal=*/true);
  return mixed.transpose(1, 2).reshape({b, t, d});
}

at::Tensor ResidualFeedForward(const at::Tensor& x, const LinearLayer& first,
                               const LinearLayer& second) {
  return FeedForward(x, first.weight(), first.bias(), second.weight(),
                     second.bias());
}

at::Tensor CheckpointedFeedForward(const at::Tensor& x,
                                   const LinearLayer& first,
                                   const LinearLayer& second) {
  return FeedForwardNode::apply(x, first.weight(), first.bias(),
                                second.weight(), second.bias());
}

}  // namespace esper::host
