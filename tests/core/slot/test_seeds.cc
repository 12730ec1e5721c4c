#include "tests/core/slot/test_seeds.h"

#include <ATen/ops/full.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>

#include <cstdio>
#include <cstdlib>
#include <limits>
#include <utility>
#include <vector>

#include "torch/nn/modules/conv.h"

namespace esper::testing {
namespace {

using slot::Blueprint;
using slot::SeedModule;
using slot::SeedModuleOptions;
using slot::SeedStage;
using slot::Topology;

void Check(const absl::Status& status, const char* what) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s: %s\n", what, status.ToString().c_str());
  std::abort();
}

std::vector<int64_t> PerChannel(Topology topology, int64_t channels) {
  if (topology == Topology::kCnn) return {channels, 1, 1};
  return {channels};
}

class NormSeed : public SeedModule {
 public:
  NormSeed(Topology topology, const SeedModuleOptions& options)
      : SeedModule("norm") {
    const auto shape = PerChannel(topology, options.channels);
    const auto scale = options.values.find("scale");
    weight_ = register_parameter(
        "weight", at::randn(shape) *=
                  double(scale == options.values.end() ? 1 : scale->second));
    bias_ = register_parameter("bias", at::zeros(shape));
    gain_ = register_parameter("gain", at::full({}, 0.5));
  }
  at::Tensor forward(const at::Tensor& input) override {
    return input.add(at::tanh(gain_).mul(input.mul(weight_).add(bias_)));
  }
  bool starts_with_normalization() const override { return false; }

 private:
  at::Tensor weight_, bias_, gain_;
};

class ConvSeed : public SeedModule {
 public:
  explicit ConvSeed(int64_t channels)
      : SeedModule("conv"),
        conv_(register_module(
            "conv",
            torch::nn::Conv2d(
                torch::nn::Conv2dOptions(channels, channels, 1).bias(false)))) {
  }
  at::Tensor forward(const at::Tensor& input) override {
    return conv_->forward(input);
  }
  bool starts_with_normalization() const override { return false; }

 private:
  torch::nn::Conv2d conv_;
};

class NoopSeed : public SeedModule {
 public:
  NoopSeed() : SeedModule("noop") {}
  at::Tensor forward(const at::Tensor& input) override { return input; }
};

class NanSeed : public SeedModule {
 public:
  NanSeed(Topology topology, int64_t channels)
      : SeedModule("nan"),
        weight_(register_parameter("weight",
                                   at::ones(PerChannel(topology, channels)))) {}
  at::Tensor forward(const at::Tensor& input) override {
    return input.add(weight_.mul(std::numeric_limits<double>::quiet_NaN()));
  }

 private:
  at::Tensor weight_;
};

class CropSeed : public SeedModule {
 public:
  CropSeed() : SeedModule("crop") {}
  at::Tensor forward(const at::Tensor& input) override {
    return input.narrow(1, 0, input.size(1) - 1);
  }
};

class FirstNormSeed : public SeedModule {
 public:
  explicit FirstNormSeed(int64_t channels)
      : SeedModule("first_norm"),
        weight_(register_parameter("weight", at::ones({channels}))),
        bias_(register_parameter("bias", at::zeros({channels}))) {}
  at::Tensor forward(const at::Tensor& input) override {
    return at::group_norm(input, 1, weight_, bias_);
  }

 private:
  at::Tensor weight_, bias_;
};

template <typename Make>
Blueprint Recipe(Topology topology, std::string name, int64_t index,
                 int64_t per_channel, int64_t fixed, Make make) {
  Blueprint blueprint;
  blueprint.topology = topology;
  blueprint.name = std::move(name);
  blueprint.action_index = index;
  blueprint.parameter_estimate = per_channel * 64 + fixed;
  blueprint.parameter_count = [=](int64_t c) {
    return per_channel * c + fixed;
  };
  blueprint.create = [make](const SeedModuleOptions& options)
      -> absl::StatusOr<std::shared_ptr<SeedModule>> {
    return std::shared_ptr<SeedModule>(make(options));
  };
  return blueprint;
}

std::vector<Blueprint> Recipes() {
  std::vector<Blueprint> recipes;
  for (const Topology topology : {Topology::kCnn, Topology::kTransformer}) {
    recipes.push_back(Recipe(topology, "norm", 3, 2, 1,
                             [topology](const SeedModuleOptions& o) {
                               return std::make_shared<NormSeed>(topology, o);
                             }));
    recipes.back().value_names = {"scale"};
    recipes.push_back(Recipe(
        topology, "noop", 0, 0, 0,
        [](const SeedModuleOptions&) { return std::make_shared<NoopSeed>(); }));
    recipes.push_back(Recipe(
        topology, "nan", 2, 1, 0, [topology](const SeedModuleOptions& o) {
          return std::make_shared<NanSeed>(topology, o.channels);
        }));
    recipes.push_back(Recipe(
        topology, "crop", 4, 0, 0,
        [](const SeedModuleOptions&) { return std::make_shared<CropSeed>(); }));
  }
  recipes.push_back(Recipe(
      Topology::kCnn, "conv", 6, 0, 4096,
      [](const auto& o) { return std::make_shared<ConvSeed>(o.channels); }));
  recipes.push_back(
      Recipe(Topology::kCnn, "first_norm", 5, 2, 0, [](const auto& o) {
        return std::make_shared<FirstNormSeed>(o.channels);
      }));
  return recipes;
}

}  // namespace

const slot::BlueprintRegistry& TestBlueprints() {
  static const auto& registry = *new slot::BlueprintRegistry(
      slot::BlueprintRegistry::Create(Recipes()).value());
  return registry;
}

std::shared_ptr<slot::SeedSlot> MakeSlot(slot::SeedSlot::Options options) {
  if (options.slot_id.empty()) options.slot_id = "r0c0";
  return slot::SeedSlot::Create(options).value();
}

std::shared_ptr<slot::SeedSlot> MakeSlot(Topology topology, int64_t channels) {
  slot::SeedSlot::Options options;
  options.topology = topology;
  options.channels = channels;
  return MakeSlot(options);
}

slot::SlotLifecycle MakeLifecycle(slot::SlotLifecycle::Options options) {
  if (options.registry == nullptr) options.registry = &TestBlueprints();
  return slot::SlotLifecycle::Create(options).value();
}

slot::GradientReading HealthyReading() {
  slot::GradientReading reading;
  reading.sampled = true;
  reading.seed_norm = 1.0;
  reading.ratio = 1.0;
  reading.health = 1.0;
  reading.has_vanishing = false;
  reading.has_exploding = false;
  return reading;
}

void GrowTo(const slot::SlotLifecycle& lifecycle, slot::SeedSlot& slot,
            SeedStage stage, slot::GerminateRequest request) {
  if (request.blueprint_id.empty()) request.blueprint_id = "norm";
  Check(lifecycle.Germinate(slot, request).status(), "germinate");
  if (stage == SeedStage::kGerminated) return;
  Check(lifecycle.Advance(slot).status(), "advance to TRAINING");
  if (stage == SeedStage::kTraining) return;
  for (int epoch = 0; epoch < 10; ++epoch) {
    Check(slot.RecordAccuracy(50 + epoch), "accuracy");
  }
  Check(slot.RecordGradients(HealthyReading()), "gradients");
  Check(lifecycle.Advance(slot).status(), "advance to BLENDING");
  if (stage == SeedStage::kBlending) return;
  while (slot.Report()->telemetry.time_to_target > 0) {
    Check(lifecycle.Tick(slot).status(), "tick");
  }
  Check(lifecycle.Advance(slot).status(), "advance to HOLDING");
  if (stage == SeedStage::kHolding) return;
  Check(slot.RecordContribution(2.0), "contribution");
  Check(lifecycle.Fossilize(slot).status(), "fossilize");
  if (slot.stage() != stage) std::abort();
}

}  // namespace esper::testing
