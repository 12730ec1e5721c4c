#include "core/host/transformer_blueprints.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "core/host/layers.h"
#include "core/host/transformer_layers.h"

namespace esper::host {
namespace {

using slot::SeedModuleOptions;

constexpr int64_t kDefaultHeads = 4;

// What the constructors of the seeds share.
class SeedBuilder {
 public:
  SeedBuilder(std::string blueprint, const SeedModuleOptions& options)
      : blueprint(std::move(blueprint)),
        width(options.channels),
        generator_(options.seed.has_value()
                       ? MakeGenerator(*options.seed)
                       : at::detail::getDefaultCPUGenerator()),
        values_(options.values) {}

  int64_t Value(const std::string& name, int64_t absent) const {
    const auto found = values_.find(name);
    return found == values_.end() ? absent : found->second;
  }

  std::shared_ptr<LinearLayer> Linear(int64_t in, int64_t out,
                                      bool bias = true) {
    return std::make_shared<LinearLayer>(LinearLayer::Options{in, out, bias},
                                         generator_);
  }

  // The layer whose output joins the features: nothing at first.
  std::shared_ptr<LinearLayer> ZeroLinear(int64_t in, int64_t out,
                                          bool bias = true) {
    auto layer = Linear(in, out, bias);
    layer->weight().detach().zero_();
    if (bias) layer->bias().detach().zero_();
    return layer;
  }

  const std::string blueprint;
  const int64_t width;  // d.

 private:
  at::Generator generator_;
  const std::map<std::string, int64_t>& values_;
};

// y = x.
class NoopSeed : public slot::SeedModule {
 public:
  explicit NoopSeed(SeedBuilder& builder) : SeedModule(builder.blueprint) {}
  at::Tensor forward(const at::Tensor& x) override { return x; }
  bool starts_with_normalization() const override { return false; }
};

// y = x + tanh(scale) (LN(x) - x).
class NormSeed : public slot::SeedModule {
 public:
  explicit NormSeed(SeedBuilder& builder)
      : SeedModule(builder.blueprint),
        norm_(register_module("norm",
                              std::make_shared<LayerNormLayer>(builder.width))),
        scale_(register_parameter("scale", at::zeros({1}))) {}
  at::Tensor forward(const at::Tensor& x) override {
    return x + at::tanh(scale_) * (norm_->Apply(x) - x);
  }
  bool starts_with_normalization() const override { return true; }

 private:
  const std::shared_ptr<LayerNormLayer> norm_;
  at::Tensor scale_;
};

// y = x + up(down(x)), without biases.
template <int64_t kRank>
class LoraSeed : public slot::SeedModule {
 public:
  explicit LoraSeed(SeedBuilder& builder)
      : SeedModule(builder.blueprint),
        down_(register_module(
            "down", builder.Linear(builder.width, kRank, /*bias=*/false))),
        up_(register_module("up", builder.ZeroLinear(kRank, builder.width,
                                                     /*bias=*/false))) {}
  at::Tensor forward(const at::Tensor& x) override {
    return x + up_->Apply(down_->Apply(x));
  }
  bool starts_with_normalization() const override { return false; }

 private:
  const std::shared_ptr<LinearLayer> down_;
  const std::shared_ptr<LinearLayer> up_;
};

// y = x + proj(causal attention(x)).
class AttentionSeed : public slot::SeedModule {
 public:
  explicit AttentionSeed(SeedBuilder& builder)
      : SeedModule(builder.blueprint),
        heads_(builder.Value("n_head", kDefaultHeads)),
        qkv_(register_module("qkv",
                             builder.Linear(builder.width, 3 * builder.width))),
        proj_(register_module(
            "proj", builder.ZeroLinear(builder.width, builder.width))) {}
  at::Tensor forward(const at::Tensor& x) override {
    return x + proj_->Apply(CausalAttention(qkv_->Apply(x), heads_));
  }
  bool starts_with_normalization() const override { return false; }

  static absl::Status Check(const SeedBuilder& builder) {
    const int64_t heads = builder.Value("n_head", kDefaultHeads);
    if (heads >= 1 && builder.width % heads == 0) return absl::OkStatus();
    return MakeStatus(
        absl::StatusCode::kInvalidArgument,
        {.reason = "BAD_BLUEPRINT_OPTION", .field = "n_head"},
        absl::StrCat("Blueprint ", builder.blueprint, " cannot share ",
                     builder.width, " channels evenly among ", heads,
                     " heads."));
  }

 private:
  const int64_t heads_;
  const std::shared_ptr<LinearLayer> qkv_;
  const std::shared_ptr<LinearLayer> proj_;
};

// y = x + fc2(gelu(fc1(x))).
template <int64_t kExpansion>
class MlpSeed : public slot::SeedModule {
 public:
  explicit MlpSeed(SeedBuilder& builder)
      : SeedModule(builder.blueprint),
        checkpoint_(builder.Value("checkpoint", 0) == 1),
        fc1_(register_module("fc1",
                             builder.Linear(builder.width, Hidden(builder)))),
        fc2_(register_module(
            "fc2", builder.ZeroLinear(Hidden(builder), builder.width))) {}
  at::Tensor forward(const at::Tensor& x) override {
    const bool again = checkpoint_ && is_training() && x.requires_grad() &&
                       at::GradMode::is_enabled();
    return again ? CheckpointedFeedForward(x, *fc1_, *fc2_)
                 : ResidualFeedForward(x, *fc1_, *fc2_);
  }
  bool starts_with_normalization() const override { return false; }

  static absl::Status Check(const SeedBuilder& builder) {
    const int64_t value = builder.Value("checkpoint", 0);
    if (value == 0 || value == 1) return absl::OkStatus();
    return MakeStatus(
        absl::StatusCode::kInvalidArgument,
        {.reason = "BAD_BLUEPRINT_OPTION", .field = "checkpoint"},
        absl::StrCat("Blueprint ", builder.blueprint,
                     " takes checkpoint 0 or 1, got ", value, "."));
  }

 private:
  static int64_t Hidden(const SeedBuilder& builder) {
    return kExpansion * builder.width;
  }

  const bool checkpoint_;
  const std::shared_ptr<LinearLayer> fc1_;
  const std::shared_ptr<LinearLayer> fc2_;
};

absl::Status NothingToCheck(const SeedBuilder&) { return absl::OkStatus(); }

struct Recipe {
  std::string name;
  int64_t estimate = 0;
  std::function<int64_t(int64_t)> parameter_count;
  std::set<std::string> value_names = {};
  absl::Status (*check)(const SeedBuilder&) = NothingToCheck;
};

template <typename SeedType>
slot::Blueprint Describe(Recipe recipe) {
  slot::Blueprint blueprint;
  blueprint.topology = slot::Topology::kTransformer;
  blueprint.name = recipe.name;
  blueprint.parameter_estimate = recipe.estimate;
  blueprint.parameter_count = std::move(recipe.parameter_count);
  blueprint.value_names = std::move(recipe.value_names);
  blueprint.create = [name = recipe.name,
                      check = recipe.check](const SeedModuleOptions& options)
      -> absl::StatusOr<std::shared_ptr<slot::SeedModule>> {
    // Parameters made under inference mode could never be trained.
    c10::InferenceMode no_inference(false);
    SeedBuilder builder(name, options);
    if (absl::Status status = check(builder); !status.ok()) return status;
    return std::make_shared<SeedType>(builder);
  };
  return blueprint;
}

int64_t AttentionCount(int64_t d) { return 4 * d * d + 4 * d; }

}  // namespace

std::vector<slot::Blueprint> TransformerBlueprints() {
  return {
      Describe<NoopSeed>({"noop", 0, [](int64_t) { return int64_t{0}; }}),
      Describe<NormSeed>({"norm", 800, [](int64_t d) { return 2 * d + 1; }}),
      Describe<LoraSeed<8>>({"lora", 6000, [](int64_t d) { return 16 * d; }}),
      Describe<LoraSeed<32>>(
          {"lora_large", 25000, [](int64_t d) { return 64 * d; }}),
      Describe<AttentionSeed>({"attention",
                               591000,
                               AttentionCount,
                               {"n_head"},
                               AttentionSeed::Check}),
      Describe<AttentionSeed>({"flex_attention",
                               591000,
                               AttentionCount,
                               {"n_head"},
                               AttentionSeed::Check}),
      Describe<MlpSeed<2>>({"mlp_small",
                            591000,
                            [](int64_t d) { return 4 * d * d + 3 * d; },
                            {"checkpoint"},
                            MlpSeed<2>::Check}),
      Describe<MlpSeed<4>>({"mlp",
                            1200000,
                            [](int64_t d) { return 8 * d * d + 5 * d; },
                            {"checkpoint"},
                            MlpSeed<4>::Check}),
  };
}

}  // namespace esper::host
