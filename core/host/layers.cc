#include "core/host/layers.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <cstdint>

namespace esper::host {
namespace {

constexpr double kEpsilon = 1e-5;
constexpr double kMomentum = 0.1;

at::Tensor DefaultParameter(at::IntArrayRef shape, int64_t fan_in,
                            at::Generator& generator) {
  at::Tensor parameter = at::empty(shape, at::kFloat);
  FillDefault(parameter, fan_in, generator);
  return parameter;
}

}  // namespace

at::Generator MakeGenerator(uint64_t seed) {
  return at::make_generator<at::CPUGeneratorImpl>(seed);
}

void FillDefault(const at::Tensor& parameter, int64_t fan_in,
                 at::Generator& generator) {
  const double bound = 1.0 / std::sqrt(static_cast<double>(fan_in));
  parameter.detach().uniform_(-bound, bound, generator);
}

ConvLayer::ConvLayer(const Options& options, at::Generator& generator)
    : options_(options) {
  const int64_t in = options.in / options.groups;
  const int64_t k = options.kernel;
  weight_ = register_parameter(
      "weight",
      DefaultParameter({options.out, in, k, k}, in * k * k, generator));
}

at::Tensor ConvLayer::Apply(const at::Tensor& x) const {
  const int64_t padding = options_.kernel / 2;
  return at::conv2d(x, weight_, /*bias=*/{}, /*stride=*/1, padding,
                    /*dilation=*/1, options_.groups);
}

LinearLayer::LinearLayer(const Options& options, at::Generator& generator) {
  weight_ = register_parameter(
      "weight",
      DefaultParameter({options.out, options.in}, options.in, generator));
  if (options.bias) {
    bias_ = register_parameter(
        "bias", DefaultParameter({options.out}, options.in, generator));
  }
}

at::Tensor LinearLayer::Apply(const at::Tensor& x) const {
  return at::linear(x, weight_, bias_);
}

GroupNormLayer::GroupNormLayer(int64_t groups, int64_t channels)
    : groups_(groups) {
  weight_ = register_parameter("weight", at::ones({channels}));
  bias_ = register_parameter("bias", at::zeros({channels}));
}

at::Tensor GroupNormLayer::Apply(const at::Tensor& x) const {
  return at::group_norm(x, groups_, weight_, bias_, kEpsilon,
                        /*cudnn_enabled=*/true);
}

BatchNormLayer::BatchNormLayer(int64_t channels) {
  weight_ = register_parameter("weight", at::ones({channels}));
  bias_ = register_parameter("bias", at::zeros({channels}));
  running_mean_ = register_buffer("running_mean", at::zeros({channels}));
  running_var_ = register_buffer("running_var", at::ones({channels}));
  num_batches_tracked_ =
      register_buffer("num_batches_tracked", at::zeros({}, at::kLong));
}

at::Tensor BatchNormLayer::Apply(const at::Tensor& x) const {
  if (is_training()) num_batches_tracked_.add_(1);
  return at::batch_norm(x, weight_, bias_, running_mean_, running_var_,
                        is_training(), kMomentum, kEpsilon,
                        /*cudnn_enabled=*/true);
}

}  // namespace esper::host
