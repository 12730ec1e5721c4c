#include "core/host/cnn_blueprints.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/host/layers.h"
#include "core/host/transformer_blueprints.h"

namespace esper::host {
namespace {

using slot::AlphaAlgorithm;
using slot::InitProfile;
using slot::SeedModuleOptions;

// A seed whose contribution starts at this share of a normalised feature: far
// from dead, and within a hundredth of the identity.
constexpr double kNearIdentityScale = 1e-3;
constexpr double kAttentionBias = 3.0;  // sigmoid(3) = 0.9526.

int64_t AttentionWidth(int64_t channels) {
  return std::max<int64_t>(1, channels / 4);
}

int64_t BottleneckWidth(int64_t channels) {
  return std::max<int64_t>(8, channels / 4);
}

// What the constructors of the seeds share: where weights come from, and which
// identity at birth was asked for.
class SeedBuilder {
 public:
  explicit SeedBuilder(const SeedModuleOptions& options)
      : channels(options.channels),
        live(options.init_profile == InitProfile::kLive),
        multiply(options.algorithm == AlphaAlgorithm::kMultiply),
        generator_(options.seed.has_value()
                       ? MakeGenerator(*options.seed)
                       : at::detail::getDefaultCPUGenerator()),
        profile_(options.init_profile) {}

  std::shared_ptr<ConvLayer> Conv(int64_t in, int64_t out, int64_t kernel,
                                  int64_t groups = 1) {
    return std::make_shared<ConvLayer>(
        ConvLayer::Options{in, out, kernel, groups}, generator_);
  }
  std::shared_ptr<LinearLayer> Linear(int64_t in, int64_t out, bool bias) {
    return std::make_shared<LinearLayer>(LinearLayer::Options{in, out, bias},
                                         generator_);
  }
  std::shared_ptr<GroupNormLayer> Norm() const {
    return std::make_shared<GroupNormLayer>(GroupNormGroups(channels, profile_),
                                            channels);
  }

  // Makes a seed of the form y = x + f(norm(layer(...))) the identity at birth,
  // or nearly so. A zero layer in front of a norm kills the gradient (behind a
  // ReLU) or multiplies it by 1 / sqrt(epsilon), hence the two ways.
  void StartNearIdentity(const ConvLayer& layer,
                         const GroupNormLayer& norm) const {
    if (live) {
      norm.weight().detach().fill_(kNearIdentityScale);
    } else {
      layer.weight().detach().zero_();
    }
  }

  const int64_t channels;
  const bool live;
  const bool multiply;

 private:
  at::Generator generator_;
  const InitProfile profile_;
};

// y = x.
class NoopSeed : public slot::SeedModule {
 public:
  explicit NoopSeed(SeedBuilder&) : SeedModule("noop") {}
  at::Tensor forward(const at::Tensor& x) override { return x; }
  bool starts_with_normalization() const override { return false; }
};

// y = x + tanh(scale) (GN(x) - x).
class NormSeed : public slot::SeedModule {
 public:
  explicit NormSeed(SeedBuilder& builder)
      : SeedModule("norm"), norm_(register_module("norm", builder.Norm())) {
    scale_ = register_parameter("scale", at::zeros({1}));
  }
  at::Tensor forward(const at::Tensor& x) override {
    return x + at::tanh(scale_) * (norm_->Apply(x) - x);
  }
  bool starts_with_normalization() const override { return true; }

 private:
  const std::shared_ptr<GroupNormLayer> norm_;
  at::Tensor scale_;
};

// y = x * sigmoid(W2 relu(W1 mean(x)) + bias), per channel.
class AttentionSeed : public slot::SeedModule {
 public:
  explicit AttentionSeed(SeedBuilder& builder) : SeedModule("attention") {
    const int64_t c = builder.channels;
    const int64_t r = AttentionWidth(c);
    auto fc = std::make_shared<torch::nn::Module>();
    squeeze_ = fc->register_module("0", builder.Linear(c, r, /*bias=*/false));
    excite_ = fc->register_module("2", builder.Linear(r, c, /*bias=*/true));
    register_module("fc", std::move(fc));
    excite_->weight().detach().zero_();
    // Upstream's germination zeroes the last layer for MULTIPLY, bias and all:
    // the seed then halves its input.
    const bool halve = !builder.live && builder.multiply;
    excite_->bias().detach().fill_(halve ? 0.0 : kAttentionBias);
  }
  at::Tensor forward(const at::Tensor& x) override {
    const at::Tensor mean = at::mean(x, {2, 3});
    const at::Tensor weight =
        at::sigmoid(excite_->Apply(at::relu(squeeze_->Apply(mean))));
    return x * weight.unsqueeze(-1).unsqueeze(-1);
  }
  bool starts_with_normalization() const override { return false; }

 private:
  std::shared_ptr<LinearLayer> squeeze_;
  std::shared_ptr<LinearLayer> excite_;
};

// y = x + relu(GN(conv1x1(x))).
class ConvSmallSeed : public slot::SeedModule {
 public:
  explicit ConvSmallSeed(SeedBuilder& builder)
      : SeedModule("conv_small"),
        conv_(register_module(
            "conv", builder.Conv(builder.channels, builder.channels, 1))),
        gn_(register_module("gn", builder.Norm())) {
    builder.StartNearIdentity(*conv_, *gn_);
  }
  at::Tensor forward(const at::Tensor& x) override {
    return x + at::relu(gn_->Apply(conv_->Apply(x)));
  }
  bool starts_with_normalization() const override { return false; }

 private:
  const std::shared_ptr<ConvLayer> conv_;
  const std::shared_ptr<GroupNormLayer> gn_;
};

// y = x + GN(up(relu(conv3x3(relu(down(x)))))).
class BottleneckSeed : public slot::SeedModule {
 public:
  explicit BottleneckSeed(SeedBuilder& builder) : SeedModule("bottleneck") {
    const int64_t c = builder.channels;
    const int64_t b = BottleneckWidth(c);
    down_ = register_module("down", builder.Conv(c, b, 1));
    conv_ = register_module("conv", builder.Conv(b, b, 3));
    up_ = register_module("up", builder.Conv(b, c, 1));
    gn_ = register_module("gn", builder.Norm());
    builder.StartNearIdentity(*up_, *gn_);
  }
  at::Tensor forward(const at::Tensor& x) override {
    const at::Tensor narrow = at::relu(down_->Apply(x));
    const at::Tensor mixed = at::relu(conv_->Apply(narrow));
    return x + gn_->Apply(up_->Apply(mixed));
  }
  bool starts_with_normalization() const override { return false; }

 private:
  std::shared_ptr<ConvLayer> down_;
  std::shared_ptr<ConvLayer> conv_;
  std::shared_ptr<ConvLayer> up_;
  std::shared_ptr<GroupNormLayer> gn_;
};

// y = x + relu(GN(pointwise(depthwise3x3(x)))).
class DepthwiseSeed : public slot::SeedModule {
 public:
  explicit DepthwiseSeed(SeedBuilder& builder) : SeedModule("depthwise") {
    const int64_t c = builder.channels;
    depthwise_ = register_module("depthwise", builder.Conv(c, c, 3, c));
    pointwise_ = register_module("pointwise", builder.Conv(c, c, 1));
    gn_ = register_module("gn", builder.Norm());
    if (builder.multiply) builder.StartNearIdentity(*pointwise_, *gn_);
  }
  at::Tensor forward(const at::Tensor& x) override {
    return x + at::relu(gn_->Apply(pointwise_->Apply(depthwise_->Apply(x))));
  }
  bool starts_with_normalization() const override { return false; }

 private:
  std::shared_ptr<ConvLayer> depthwise_;
  std::shared_ptr<ConvLayer> pointwise_;
  std::shared_ptr<GroupNormLayer> gn_;
};

// relu(GN(conv3x3(x))).
class EnhanceBlock : public torch::nn::Module {
 public:
  explicit EnhanceBlock(SeedBuilder& builder)
      : conv(register_module(
            "conv", builder.Conv(builder.channels, builder.channels, 3))),
        gn(register_module("gn", builder.Norm())) {}
  at::Tensor Apply(const at::Tensor& x) const {
    return at::relu(gn->Apply(conv->Apply(x)));
  }

  const std::shared_ptr<ConvLayer> conv;
  const std::shared_ptr<GroupNormLayer> gn;
};

// y = x + block(x).
class ConvLightSeed : public slot::SeedModule {
 public:
  explicit ConvLightSeed(SeedBuilder& builder)
      : SeedModule("conv_light"),
        enhance_(register_module("enhance",
                                 std::make_shared<EnhanceBlock>(builder))) {
    if (builder.multiply) {
      builder.StartNearIdentity(*enhance_->conv, *enhance_->gn);
    }
  }
  at::Tensor forward(const at::Tensor& x) override {
    return x + enhance_->Apply(x);
  }
  bool starts_with_normalization() const override { return false; }

 private:
  const std::shared_ptr<EnhanceBlock> enhance_;
};

// y = x + block1(block0(x)).
class ConvHeavySeed : public slot::SeedModule {
 public:
  explicit ConvHeavySeed(SeedBuilder& builder) : SeedModule("conv_heavy") {
    auto enhance = std::make_shared<torch::nn::Module>();
    first_ =
        enhance->register_module("0", std::make_shared<EnhanceBlock>(builder));
    second_ =
        enhance->register_module("1", std::make_shared<EnhanceBlock>(builder));
    register_module("enhance", std::move(enhance));
    if (builder.multiply) {
      builder.StartNearIdentity(*second_->conv, *second_->gn);
    }
  }
  at::Tensor forward(const at::Tensor& x) override {
    return x + second_->Apply(first_->Apply(x));
  }
  bool starts_with_normalization() const override { return false; }

 private:
  std::shared_ptr<EnhanceBlock> first_;
  std::shared_ptr<EnhanceBlock> second_;
};

template <typename SeedType>
slot::Blueprint Describe(std::string name, int64_t estimate,
                         std::function<int64_t(int64_t)> parameter_count) {
  slot::Blueprint blueprint;
  blueprint.topology = slot::Topology::kCnn;
  blueprint.name = std::move(name);
  blueprint.parameter_estimate = estimate;
  blueprint.parameter_count = std::move(parameter_count);
  blueprint.create = [](const SeedModuleOptions& options)
      -> absl::StatusOr<std::shared_ptr<slot::SeedModule>> {
    // Parameters made under inference mode could never be trained.
    c10::InferenceMode no_inference(false);
    SeedBuilder builder(options);
    return std::make_shared<SeedType>(builder);
  };
  return blueprint;
}

}  // namespace

int64_t GroupNormGroups(int64_t channels, InitProfile profile) {
  if (profile == InitProfile::kLive && channels < 16) return 1;
  for (const int64_t groups : {32, 16, 8, 4, 2, 1}) {
    if (channels % groups == 0 && channels / groups >= 16) return groups;
  }
  for (const int64_t groups : {32, 16, 8, 4, 2}) {
    if (channels % groups == 0) return groups;
  }
  return 1;
}

std::vector<slot::Blueprint> CnnBlueprints() {
  return {
      Describe<NoopSeed>("noop", 0, [](int64_t) { return int64_t{0}; }),
      Describe<NormSeed>("norm", 130, [](int64_t c) { return 2 * c + 1; }),
      Describe<AttentionSeed>(
          "attention", 2000,
          [](int64_t c) { return 2 * c * AttentionWidth(c) + c; }),
      Describe<ConvSmallSeed>("conv_small", 4200,
                              [](int64_t c) { return c * c + 2 * c; }),
      Describe<BottleneckSeed>("bottleneck", 4500,
                               [](int64_t c) {
                                 const int64_t b = BottleneckWidth(c);
                                 return 2 * c * b + 9 * b * b + 2 * c;
                               }),
      Describe<DepthwiseSeed>("depthwise", 4800,
                              [](int64_t c) { return c * c + 11 * c; }),
      Describe<ConvLightSeed>("conv_light", 37000,
                              [](int64_t c) { return 9 * c * c + 2 * c; }),
      Describe<ConvHeavySeed>("conv_heavy", 74000,
                              [](int64_t c) { return 18 * c * c + 4 * c; }),
  };
}

const slot::BlueprintRegistry& DefaultBlueprints() {
  // Never destroyed: seeds may outlive static destruction.
  static const slot::BlueprintRegistry* const registry = [] {
    std::vector<slot::Blueprint> all = CnnBlueprints();
    for (slot::Blueprint& blueprint : TransformerBlueprints()) {
      all.push_back(std::move(blueprint));
    }
    return new slot::BlueprintRegistry(
        slot::BlueprintRegistry::Create(std::move(all)).value());
  }();
  return *registry;
}

}  // namespace esper::host
