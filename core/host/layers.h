#ifndef ESPER_CORE_HOST_LAYERS_H_
#define ESPER_CORE_HOST_LAYERS_H_

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>

// The few layers that hosts and seeds are made of. They differ from
// torch::nn's in two points: initial weights come from a generator that the
// caller owns, and `Apply` is const. Parameter names are those of torch::nn.
namespace esper::host {

// A generator of its own, on the CPU. Draws move no global generator.
at::Generator MakeGenerator(uint64_t seed);

// Fills with U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what PyTorch's convolutions
// and linear layers start from, weights (Kaiming uniform, a = sqrt 5) as well
// as biases.
void FillDefault(const at::Tensor& parameter, int64_t fan_in,
                 at::Generator& generator);

// A convolution without bias that keeps height and width (odd kernels, stride
// 1, padding kernel / 2). Parameter: weight float [out, in / groups, k, k].
class ConvLayer : public torch::nn::Module {
 public:
  struct Options {
    int64_t in = 0;
    int64_t out = 0;
    int64_t kernel = 3;
    int64_t groups = 1;
  };

  ConvLayer(const Options& options, at::Generator& generator);

  // x: float [B, in, H, W]. Returns [B, out, H, W].
  at::Tensor Apply(const at::Tensor& x) const;

  const at::Tensor& weight() const { return weight_; }

 private:
  const Options options_;
  at::Tensor weight_;
};

// Parameters: weight float [out, in] and, if asked for, bias float [out].
class LinearLayer : public torch::nn::Module {
 public:
  struct Options {
    int64_t in = 0;
    int64_t out = 0;
    bool bias = true;
  };

  LinearLayer(const Options& options, at::Generator& generator);

  // x: float [..., in]. Returns [..., out].
  at::Tensor Apply(const at::Tensor& x) const;

  const at::Tensor& weight() const { return weight_; }
  const at::Tensor& bias() const { return bias_; }  // Undefined without.

 private:
  at::Tensor weight_;
  at::Tensor bias_;
};

// Group normalisation with epsilon 1e-5, starting at scale 1 and bias 0.
// Parameters: weight and bias float [C].
class GroupNormLayer : public torch::nn::Module {
 public:
  // `groups` divides `channels`.
  GroupNormLayer(int64_t groups, int64_t channels);

  // x: float [B, C, H, W]. Returns the same shape.
  at::Tensor Apply(const at::Tensor& x) const;

  const at::Tensor& weight() const { return weight_; }
  const at::Tensor& bias() const { return bias_; }

 private:
  const int64_t groups_;
  at::Tensor weight_;
  at::Tensor bias_;
};

// Batch normalisation over all but axis 1, epsilon 1e-5, momentum 0.1. In
// training mode it normalises by the batch and updates its running statistics,
// which evaluation mode uses. Parameters: weight and bias float [C]; buffers:
// running_mean and running_var float [C], num_batches_tracked int64 [].
class BatchNormLayer : public torch::nn::Module {
 public:
  explicit BatchNormLayer(int64_t channels);

  // x: float [B, C, H, W]. Returns the same shape.
  at::Tensor Apply(const at::Tensor& x) const;

 private:
  at::Tensor weight_;
  at::Tensor bias_;
  at::Tensor running_mean_;
  at::Tensor running_var_;
  at::Tensor num_batches_tracked_;
};

}  // namespace esper::host
#endif  // ESPER_CORE_HOST_LAYERS_H_
