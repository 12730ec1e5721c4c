// Seeds in a transformer host, from tokens to logits.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/where.h>
#include <c10/core/InferenceMode.h>

#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/host/cnn_blueprints.h"
#include "core/host/counterfactual_eval.h"
#include "core/host/growable_model.h"
#include "core/host/layers.h"
#include "core/host/transformer_host.h"
#include "core/slot/blend.h"
#include "core/slot/slot_lifecycle.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/slot/test_seeds.h"
#include "tests/testing/status_matchers.h"

namespace esper::host {
namespace {

using ::esper::testing::GrowTo;
using ::esper::testing::StatusIs;
using slot::AlphaAlgorithm;
using slot::SeedStage;
using ::testing::HasSubstr;

const bool kOneThread = (at::set_num_threads(1), true);

constexpr int64_t kVocab = 23;
constexpr int64_t kWidth = 16;

at::Tensor Random(at::IntArrayRef shape, uint64_t seed = 5) {
  return at::randn(shape, MakeGenerator(seed));
}

at::Tensor Tokens(int64_t batch, int64_t length, uint64_t seed = 7) {
  return at::randint(0, kVocab, {batch, length}, MakeGenerator(seed),
                     at::kLong);
}

slot::SlotLifecycle Lifecycle() {
  slot::SlotLifecycle::Options options;
  options.registry = &DefaultBlueprints();
  return esper::testing::MakeLifecycle(options);
}

TransformerHostOptions HostOptions() {
  TransformerHostOptions options;
  options.vocab_size = kVocab;
  options.width = kWidth;
  options.heads = 2;
  options.layers = 3;
  options.block_size = 12;
  options.dropout = 0;
  // Its larger weights let a seed show in the logits.
  options.init_profile = slot::InitProfile::kUpstream;
  return options;
}

std::shared_ptr<GrowableModel> MakeModel(
    const std::vector<std::string>& slots = {"r0c0", "r0c1", "r0c2"},
    const TransformerHostOptions& options = HostOptions()) {
  return GrowableModel::Create(TransformerHost::Create(options, 1).value(),
                               slots)
      .value();
}

// Plants a seed, brings it to a stage and moves its weights. `alpha` is set
// from BLENDING on, unless negative.
slot::SeedSlot& Grow(const GrowableModel& model, const std::string& slot_id,
                     const std::string& blueprint, SeedStage stage,
                     double alpha = -1,
                     AlphaAlgorithm algorithm = AlphaAlgorithm::kAdd) {
  slot::SeedSlot& slot = *model.FindSlot(slot_id).value();
  slot::GerminateRequest request;
  request.blueprint_id = blueprint;
  request.algorithm = algorithm;
  if (algorithm == AlphaAlgorithm::kGate) request.blend_id = "gated";
  GrowTo(Lifecycle(), slot, stage, request);
  if (alpha >= 0) Lifecycle().SetAlpha(slot, alpha).status().IgnoreError();
  at::NoGradGuard no_grad;
  uint64_t seed = 300;
  for (const at::Tensor& parameter : slot.SeedParameters()) {
    parameter.add_(Random(parameter.sizes(), seed++), /*alpha=*/0.4);
  }
  return slot;
}

double MaxDifference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

TEST(TransformerModelTest, WithoutSeedsItIsTheHost) {
  const auto model = MakeModel();
  const at::Tensor x = Tokens(3, 9);
  const at::Tensor y = model->Forward(x);
  EXPECT_EQ(y.sizes(), at::IntArrayRef({3, 9, kVocab}));
  EXPECT_TRUE(at::equal(y, model->host().Forward(x)));
  for (const auto& slot : model->slots()) {
    EXPECT_EQ(slot->options().channels, kWidth);
    EXPECT_EQ(slot->options().topology, slot::Topology::kTransformer);
  }
}

TEST(TransformerModelTest, EveryBlueprintLivesThroughEveryStage) {
  const at::Tensor x = Tokens(2, 6);
  for (const slot::Blueprint* blueprint :
       DefaultBlueprints().List(slot::Topology::kTransformer)) {
    for (const auto algorithm :
         {AlphaAlgorithm::kAdd, AlphaAlgorithm::kMultiply,
          AlphaAlgorithm::kGate}) {
      const auto model = MakeModel({"r0c1"});
      const at::Tensor plain = model->host().Forward(x);
      const slot::SeedSlot& slot = Grow(*model, "r0c1", blueprint->name,
                                        SeedStage::kFossilized, -1, algorithm);
      EXPECT_EQ(slot.stage(), SeedStage::kFossilized);
      EXPECT_EQ(slot.Report()->metrics.seed_param_count,
                blueprint->parameter_count(kWidth));
      const double change = MaxDifference(model->Forward(x), plain);
      if (blueprint->name == "noop") {
        EXPECT_LT(change, 1e-4);
      } else {
        EXPECT_GT(change, 1e-3) << blueprint->name;
      }
    }
  }
}

TEST(TransformerModelTest, SeedsAreTheIdentityAtBirthUnderEveryBlend) {
  const at::Tensor x = Tokens(2, 6);
  for (const slot::Blueprint* blueprint :
       DefaultBlueprints().List(slot::Topology::kTransformer)) {
    for (const auto algorithm :
         {AlphaAlgorithm::kAdd, AlphaAlgorithm::kMultiply,
          AlphaAlgorithm::kGate}) {
      const auto model = MakeModel({"r0c1"});
      slot::SeedSlot& slot = *model->FindSlot("r0c1").value();
      slot::GerminateRequest request;
      request.blueprint_id = blueprint->name;
      request.algorithm = algorithm;
      if (algorithm == AlphaAlgorithm::kGate) request.blend_id = "gated";
      GrowTo(Lifecycle(), slot, SeedStage::kBlending, request);
      ASSERT_OK(Lifecycle().SetAlpha(slot, 0.6).status());
      EXPECT_LT(MaxDifference(model->Forward(x), model->host().Forward(x)),
                1e-4)
          << blueprint->name;
    }
  }
}

TEST(TransformerModelTest, RefusesAttentionWhoseHeadsDoNotFit) {
  TransformerHostOptions options = HostOptions();
  options.width = 6;
  options.heads = 3;
  const auto model = MakeModel({"r0c0"}, options);
  slot::SeedSlot& slot = *model->FindSlot("r0c0").value();
  slot::GerminateRequest request;
  for (const char* name : {"attention", "flex_attention"}) {
    request.blueprint_id = name;
    const auto result = Lifecycle().Germinate(slot, request);
    EXPECT_THAT(result.status(), StatusIs(absl::StatusCode::kInvalidArgument));
    EXPECT_TRUE(slot.empty());
  }
  request.blueprint_id = "conv_light";  // A blueprint of the other topology.
  const auto other = Lifecycle().Germinate(slot, request);
  EXPECT_THAT(std::string(other.status().message()), HasSubstr("lora_large"));
  request.blueprint_id = "attention";
  request.values["n_head"] = 3;
  EXPECT_OK(Lifecycle().Germinate(slot, request).status());
}

// --- Gradients through the whole network ---

std::map<std::string, at::Tensor> HostGradients(GrowableModel& model,
                                                const at::Tensor& logits) {
  model.zero_grad(/*set_to_none=*/true);
  (logits * Random(logits.sizes(), 77)).sum().backward();
  std::map<std::string, at::Tensor> gradients;
  for (const auto& item : model.host().named_parameters()) {
    gradients[item.key()] = item.value().grad().clone();
  }
  return gradients;
}

void ExpectSame(const std::map<std::string, at::Tensor>& a,
                const std::map<std::string, at::Tensor>& b) {
  for (const auto& [name, gradient] : a) {
    EXPECT_TRUE(at::allclose(gradient, b.at(name), 1e-4, 1e-5)) << name;
  }
}

TEST(TransformerModelTest, TrainingSeedLeavesHostAndItsGradientsAlone) {
  const auto model = MakeModel();
  const at::Tensor x = Tokens(2, 8);
  const at::Tensor plain = model->Forward(x);
  const auto without = HostGradients(*model, plain);
  const slot::SeedSlot& slot =
      Grow(*model, "r0c1", "mlp", SeedStage::kTraining);
  const at::Tensor logits = model->Forward(x);
  EXPECT_TRUE(at::equal(logits, plain));
  const auto with = HostGradients(*model, logits);
  for (const auto& [name, gradient] : without) {
    EXPECT_TRUE(at::equal(gradient, with.at(name))) << name;
  }
  for (const at::Tensor& parameter : slot.SeedParameters()) {
    EXPECT_GT(parameter.grad().abs().sum().item<double>(), 0);
  }
}

// The network put together by hand from host segments, seed and blend, with
// the seed reading the attached or the detached features.
TEST(TransformerModelTest, BlendingSeedIsCoupledAndTrainingSeedIsNot) {
  const at::Tensor x = Tokens(2, 8);
  for (const auto stage : {SeedStage::kTraining, SeedStage::kBlending,
                           SeedStage::kHolding, SeedStage::kFossilized}) {
    const auto model = MakeModel();
    const slot::SeedSlot& slot =
        Grow(*model, "r0c1", "attention", stage, /*alpha=*/0.35);
    const auto by_hand = [&](bool attached) {
      const at::Tensor h = model->host().ForwardToSegment("r0c1", x);
      const at::Tensor s =
          slot.plan()->seed->forward(attached ? h : h.detach());
      return model->host().ForwardFromSegment(
          "r0c1", slot::BlendAdd(h, s, at::full({}, 0.35)));
    };
    const auto actual = HostGradients(*model, model->Forward(x));
    const auto coupled = HostGradients(*model, by_hand(true));
    const auto isolated = HostGradients(*model, by_hand(false));
    const std::string early = "layers.0.mlp.c_fc.weight";
    ASSERT_FALSE(at::allclose(coupled.at(early), isolated.at(early), 1e-2));
    ExpectSame(actual, stage == SeedStage::kTraining ? isolated : coupled);
  }
}

// --- Many alphas in one pass ---

at::Tensor Override(const std::vector<double>& alphas, int64_t batch) {
  std::vector<at::Tensor> blocks;
  for (const double alpha : alphas) {
    blocks.push_back(at::full({batch, 1, 1}, alpha));
  }
  return at::cat(blocks);
}

// With token inputs, an override made in the input's own dtype would truncate
// every partial alpha to 0: then the first configuration would be the host.
TEST(TransformerModelTest, MainConfigurationEqualsThePlainForward) {
  for (const auto algorithm : {AlphaAlgorithm::kAdd, AlphaAlgorithm::kMultiply,
                               AlphaAlgorithm::kGate}) {
    const auto model = MakeModel();
    Grow(*model, "r0c1", "mlp_small", SeedStage::kBlending, 0.7, algorithm);
    model->eval();
    c10::InferenceMode inference;
    const at::Tensor x = Tokens(2, 8);
    const at::Tensor main = model->Forward(x);
    const at::Tensor host = model->host().Forward(x);
    EXPECT_GT(MaxDifference(main, host), 1e-2);
    const at::Tensor fused =
        model->FusedForward(at::cat({x, x}), {{"r0c1", Override({0.7, 0}, 2)}});
    EXPECT_TRUE(at::allclose(fused.narrow(0, 0, 2), main, 1e-4, 1e-4));
    EXPECT_TRUE(at::allclose(fused.narrow(0, 2, 2), host, 1e-4, 1e-4));
    // Doubles too, whatever the dtype of the features.
    const at::Tensor wide =
        model->FusedForward(x, {{"r0c1", Override({0.7}, 2).to(at::kDouble)}});
    EXPECT_EQ(wide.scalar_type(), at::kFloat);
    EXPECT_TRUE(at::allclose(wide, main, 1e-4, 1e-4));
  }
}

TEST(TransformerModelTest, FusedConfigurationsEqualSeparateForwards) {
  const auto model = MakeModel();
  slot::SeedSlot& first =
      Grow(*model, "r0c0", "lora", SeedStage::kBlending, 0.5);
  slot::SeedSlot& last =
      Grow(*model, "r0c2", "attention", SeedStage::kBlending, 0.25);
  model->eval();
  c10::InferenceMode inference;
  const at::Tensor x = Tokens(3, 5);
  const std::vector<double> a = {0.5, 0, 0.5, 0.9, 0};
  const std::vector<double> b = {0.25, 0.25, 0, 1, 0};
  const at::Tensor fused =
      model->FusedForward(at::cat({x, x, x, x, x}),
                          {{"r0c0", Override(a, 3)}, {"r0c2", Override(b, 3)}});
  for (size_t k = 0; k < a.size(); ++k) {
    ASSERT_OK(Lifecycle().SetAlpha(first, a[k]).status());
    ASSERT_OK(Lifecycle().SetAlpha(last, b[k]).status());
    EXPECT_LE(MaxDifference(fused.narrow(0, 3 * k, 3), model->Forward(x)), 1e-3)
        << k;
  }
}

TEST(TransformerModelTest, RefusesOverridesThatDoNotFitTokens) {
  const auto model = MakeModel();
  const at::Tensor x = Tokens(2, 8);
  const auto reason = [&](const std::string& id, const at::Tensor& alpha) {
    try {
      model->FusedForward(x, {{id, alpha}});
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), absl::StatusCode::kInvalidArgument);
      return error.reason();
    }
    return std::string("accepted");
  };
  const at::Tensor good = Override({0.5}, 2);
  EXPECT_EQ(reason("r0c0", good), "accepted");
  EXPECT_EQ(reason("r0c0", good.to(at::kLong)), "BAD_ALPHA_OVERRIDE");
  EXPECT_EQ(reason("r0c0", good * 3), "BAD_ALPHA_OVERRIDE");
  EXPECT_EQ(reason("r0c0", good / 0), "BAD_ALPHA_OVERRIDE");
  EXPECT_EQ(reason("r0c0", good.unsqueeze(-1)), "BAD_SHAPE");
  EXPECT_EQ(reason("r0c0", at::ones({4, 1, 1})), "BAD_SHAPE");
  EXPECT_EQ(reason("r0c0", at::ones({2, 8, 1})), "BAD_SHAPE");
  EXPECT_EQ(reason("r1c0", good), "UNKNOWN_SLOT");
}

// --- Measurement ---

double Accuracy(const at::Tensor& logits, const at::Tensor& labels) {
  return 100 * (at::argmax(logits, -1) == labels)
                   .to(at::kDouble)
                   .mean()
                   .item<double>();
}

TEST(TransformerModelTest, CounterfactualsMeasureEveryToken) {
  const auto model = MakeModel();
  Grow(*model, "r0c0", "mlp", SeedStage::kBlending, 0.7);
  Grow(*model, "r0c2", "attention", SeedStage::kHolding);
  model->eval();
  const at::Tensor x = Tokens(16, 12);
  // Labels that the network gets right where a coin says so.
  at::Tensor labels;
  std::map<std::string, double> without;
  double main = 0, loss = 0;
  {
    c10::InferenceMode inference;
    const at::Tensor logits = model->Forward(x);
    labels = at::where(Random({16, 12}) > 0, at::argmax(logits, -1),
                       Tokens(16, 12, 70));
    main = Accuracy(logits, labels);
    loss = at::cross_entropy_loss(logits.flatten(0, 1), labels.flatten())
               .item<double>();
    for (const std::string id : {"r0c0", "r0c2"}) {
      without[id] =
          Accuracy(model->FusedForward(x, {{id, Override({0}, 16)}}), labels);
    }
  }
  const auto result = EvaluateCounterfactuals(*model, {{x, labels}}).value();
  EXPECT_EQ(result.samples, 16 * 12);
  EXPECT_NEAR(result.val_accuracy, main, 1e-9);
  EXPECT_NEAR(result.val_loss, loss, 1e-4);
  for (const auto& [id, accuracy] : without) {
    ASSERT_NE(result.Find(id), nullptr);
    // One token may fall to the other side of a tie by rounding.
    EXPECT_NEAR(result.Find(id)->contribution, main - accuracy, 100.0 / 192);
    EXPECT_GT(result.Find(id)->contribution, 1.0);
  }
}

// --- A small language, learned ---

// Every token is followed by the next one, modulo the vocabulary.
TEST(TransformerModelTest, LearnsWhileASeedGrowsFromGerminationToTheEnd) {
  const at::Tensor state = at::detail::getDefaultCPUGenerator().get_state();
  TransformerHostOptions options = HostOptions();
  options.init_profile = slot::InitProfile::kLive;
  options.dropout = 0.05;
  const auto model = MakeModel({"r0c1"}, options);
  slot::SeedSlot& slot = *model->FindSlot("r0c1").value();
  const slot::SlotLifecycle lifecycle = Lifecycle();
  uint64_t batch = 1000;
  const auto train = [&](int steps) {
    double last = 0;
    for (int step = 0; step < steps; ++step) {
      const at::Tensor start =
          at::randint(0, kVocab, {16, 1}, MakeGenerator(batch++), at::kLong);
      const at::Tensor line =
          (start + at::ones({1, 9}, at::kLong).cumsum(1)).remainder(kVocab);
      model->zero_grad(/*set_to_none=*/true);
      const at::Tensor loss = at::cross_entropy_loss(
          model->Forward(line.narrow(1, 0, 8)).flatten(0, 1),
          line.narrow(1, 1, 8).flatten());
      loss.backward();
      last = loss.item<double>();
      at::NoGradGuard no_grad;
      for (const at::Tensor& parameter : model->parameters()) {
        if (parameter.grad().defined()) {
          parameter.sub_(parameter.grad(), /*alpha=*/0.3);
        }
      }
    }
    return last;
  };

  const double first = train(1);
  EXPECT_NEAR(first, std::log(static_cast<double>(kVocab)), 0.3);
  slot::GerminateRequest request;
  request.blueprint_id = "mlp_small";
  request.values["checkpoint"] = 1;
  request.tempo = 3;
  ASSERT_OK(lifecycle.Germinate(slot, request).status());
  ASSERT_OK(lifecycle.Advance(slot).status());
  for (int epoch = 0; epoch < 10; ++epoch) {
    train(5);
    ASSERT_TRUE(
        slot.CaptureGradients(slot::SampleGradients(model->HostParameters())));
    ASSERT_TRUE(slot.FinalizeGradients());
    ASSERT_OK(slot.RecordAccuracy(10.0 + epoch));
    ASSERT_OK(lifecycle.Tick(slot).status());
  }
  EXPECT_TRUE(slot.Report()->metrics.gradient_ratio.has_value());
  ASSERT_OK(lifecycle.Advance(slot).status());
  EXPECT_EQ(slot.stage(), SeedStage::kBlending);
  for (int epoch = 0; epoch < 3; ++epoch) {
    train(10);
    ASSERT_OK(lifecycle.Tick(slot).status());
  }
  ASSERT_OK(lifecycle.Advance(slot).status());
  ASSERT_OK(slot.RecordContribution(2.0));
  ASSERT_OK(lifecycle.Fossilize(slot).status());
  EXPECT_LT(train(100), 0.5 * first);
  EXPECT_EQ(model->CountParameters().seeds_owned,
            4 * kWidth * kWidth + 3 * kWidth);
  EXPECT_TRUE(
      at::equal(at::detail::getDefaultCPUGenerator().get_state(), state));
}

}  // namespace
}  // namespace esper::host
