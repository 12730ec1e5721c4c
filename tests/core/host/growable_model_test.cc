#include "core/host/growable_model.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "core/error.h"
#include "core/host/cnn_blueprints.h"
#include "core/host/cnn_host.h"
#include "core/host/counterfactual_eval.h"
#include "core/host/layers.h"
#include "core/slot/slot_lifecycle.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::host {
namespace {

using ::esper::testing::IsOk;
using ::esper::testing::Refused;
using ::esper::testing::StatusIs;
using slot::AlphaAlgorithm;
using slot::SeedStage;
using ::testing::ElementsAre;

const bool kOneThread = (at::set_num_threads(1), true);

at::Tensor Random(at::IntArrayRef shape, uint64_t seed = 5) {
  return at::randn(shape, MakeGenerator(seed));
}

slot::SlotLifecycle MakeLifecycle() {
  slot::SlotLifecycle::Options options;
  options.registry = &DefaultBlueprints();
  return slot::SlotLifecycle::Create(options).value();
}

std::shared_ptr<GrowableModel> MakeModel(
    const std::vector<std::string>& slots = {"r0c0", "r0c1", "r0c2"},
    uint64_t seed = 1) {
  CnnHostOptions options;
  options.in_channels = 1;
  options.base_channels = 8;
  GrowableModelOptions model_options;
  model_options.init_seed = seed;
  return GrowableModel::Create(CnnHost::Create(options, seed).value(), slots,
                               model_options)
      .value();
}

// Brings an empty slot's seed to a stage; `alpha` counts from BLENDING on.
void Grow(GrowableModel& model, const std::string& slot_id,
          const std::string& blueprint, SeedStage stage, double alpha = 0,
          AlphaAlgorithm algorithm = AlphaAlgorithm::kAdd) {
  const slot::SlotLifecycle lifecycle = MakeLifecycle();
  slot::SeedSlot& slot = **model.FindSlot(slot_id);
  slot::GerminateRequest request;
  request.blueprint_id = blueprint;
  request.algorithm = algorithm;
  request.blend_id = algorithm == AlphaAlgorithm::kGate ? "gated" : "sigmoid";
  ASSERT_OK(lifecycle.Germinate(slot, request).status());
  if (stage == SeedStage::kGerminated) return;
  ASSERT_OK(lifecycle.Advance(slot).status());
  if (stage == SeedStage::kTraining) return;
  for (int epoch = 0; epoch < 10; ++epoch) {
    ASSERT_OK(slot.RecordAccuracy(50.0 + epoch));
  }
  slot::GradientReading reading;
  reading.sampled = true;
  reading.seed_norm = 1.0;
  reading.ratio = 1.0;
  reading.health = 1.0;
  reading.has_vanishing = false;
  reading.has_exploding = false;
  ASSERT_OK(slot.RecordGradients(reading));
  ASSERT_OK(lifecycle.Advance(slot).status());
  if (stage != SeedStage::kBlending) {
    for (int epoch = 0; epoch < 10; ++epoch) {
      ASSERT_OK(lifecycle.Tick(slot).status());
    }
    ASSERT_OK(lifecycle.Advance(slot).status());
    if (stage == SeedStage::kFossilized) {
      ASSERT_OK(slot.RecordContribution(5.0));
      ASSERT_OK(lifecycle.Fossilize(slot).status());
    }
  } else {
    ASSERT_OK(lifecycle.SetAlpha(slot, alpha).status());
  }
  ASSERT_EQ(slot.stage(), stage);
}

// Moves every parameter of the seeds, so that near-identities do something.
void Disturb(const GrowableModel& model) {
  at::NoGradGuard no_grad;
  uint64_t seed = 300;
  for (const at::Tensor& parameter : model.AllSlotParameters()) {
    parameter.add_(Random(parameter.sizes(), seed++), /*alpha=*/0.5);
  }
}

TEST(GrowableModelTest, WithoutSeedsItIsTheHost) {
  const auto model = MakeModel();
  model->eval();
  const at::Tensor x = Random({4, 1, 8, 8});
  EXPECT_TRUE(at::equal(model->Forward(x), model->host().Forward(x)));
  EXPECT_TRUE(
      at::equal(MakeModel({})->Forward(x), MakeModel({"r1c1"})->Forward(x)));
}

TEST(GrowableModelTest, KeepsSlotsInActionOrderAndVisitsThemInExecutionOrder) {
  const auto model = MakeModel({"r1c0", "r0c1", "r0c0"});
  EXPECT_THAT(model->slot_ids(), ElementsAre("r0c0", "r0c1", "r1c0"));
  std::vector<std::string> route;
  for (const auto& [position, slot] : model->route()) {
    route.push_back(slot->slot_id());
  }
  EXPECT_THAT(route, ElementsAre("r0c0", "r1c0", "r0c1"));
  EXPECT_EQ(model->slots()[1]->options().channels, 16);
}

TEST(GrowableModelTest, RefusesSlotsThatTheHostDoesNotOffer) {
  const std::shared_ptr<Host> host =
      CnnHost::Create(CnnHostOptions(), 1).value();
  EXPECT_THAT(GrowableModel::Create(host, {"r0c0", "r2c0"}),
              Refused(absl::StatusCode::kInvalidArgument, "UNKNOWN_SLOT"));
  EXPECT_THAT(GrowableModel::Create(host, {"r0c0", "r0c0"}),
              Refused(absl::StatusCode::kInvalidArgument, "DUPLICATE_SLOT"));
  EXPECT_THAT(GrowableModel::Create(nullptr, {}),
              Refused(absl::StatusCode::kInvalidArgument, "NO_HOST"));
  EXPECT_THAT(MakeModel()->FindSlot("r1c0"),
              Refused(absl::StatusCode::kNotFound, "UNKNOWN_SLOT"));
}

TEST(GrowableModelTest, GerminationMovesNoGlobalGenerator) {
  const at::Generator& global = at::detail::getDefaultCPUGenerator();
  const at::Tensor state = global.get_state();
  for (const char* blueprint :
       {"noop", "norm", "attention", "conv_small", "bottleneck", "depthwise",
        "conv_light", "conv_heavy"}) {
    const auto model = MakeModel();
    Grow(*model, "r0c0", blueprint, SeedStage::kGerminated);
    Grow(*model, "r0c1", blueprint, SeedStage::kGerminated, 0,
         AlphaAlgorithm::kGate);
  }
  EXPECT_TRUE(at::equal(global.get_state(), state));
}

TEST(GrowableModelTest, SeedsDependOnSeedAndSlotAlone) {
  const auto parameters = [](uint64_t seed, const std::string& slot) {
    const auto model = MakeModel({"r0c0", "r1c0"}, seed);
    Grow(*model, slot, "conv_light", SeedStage::kGerminated);
    return model->AllSlotParameters()[0];
  };
  EXPECT_TRUE(at::equal(parameters(1, "r0c0"), parameters(1, "r0c0")));
  EXPECT_FALSE(at::equal(parameters(1, "r0c0"), parameters(2, "r0c0")));
  EXPECT_FALSE(at::equal(parameters(1, "r0c0"), parameters(1, "r1c0")));
}

TEST(GrowableModelTest, OverridesAreWhatTheSlotWouldDoAtThatAlpha) {
  for (const auto algorithm : {AlphaAlgorithm::kAdd, AlphaAlgorithm::kMultiply,
                               AlphaAlgorithm::kGate}) {
    const auto model = MakeModel();
    Grow(*model, "r0c0", "conv_light", SeedStage::kBlending, 0.3, algorithm);
    Grow(*model, "r0c1", "depthwise", SeedStage::kBlending, 0.6);
    Disturb(*model);
    model->eval();
    const at::Tensor x = Random({3, 1, 8, 8});
    const std::vector<std::pair<double, double>> settings = {
        {0.3, 0.6}, {0.0, 0.6}, {0.3, 0.0}, {0.0, 0.0}, {1.0, 0.25}};
    std::vector<at::Tensor> first, second, inputs;
    for (const auto& [a, b] : settings) {
      first.push_back(at::full({3, 1, 1, 1}, a));
      second.push_back(at::full({3, 1, 1, 1}, b));
      inputs.push_back(x);
    }
    const at::Tensor fused = model->FusedForward(
        at::cat(inputs), {{"r0c0", at::cat(first)}, {"r0c1", at::cat(second)}});
    const slot::SlotLifecycle lifecycle = MakeLifecycle();
    for (size_t k = 0; k < settings.size(); ++k) {
      const at::Tensor block = fused.narrow(0, 3 * k, 3);
      // The same by an override of its own, and by moving the slots there.
      EXPECT_TRUE(at::allclose(
          block,
          model->FusedForward(x, {{"r0c0", first[k]}, {"r0c1", second[k]}}),
          1e-5, 1e-5));
      ASSERT_OK(lifecycle.SetAlpha(**model->FindSlot("r0c0"), settings[k].first)
                    .status());
      ASSERT_OK(
          lifecycle.SetAlpha(**model->FindSlot("r0c1"), settings[k].second)
              .status());
      EXPECT_TRUE(at::allclose(block, model->Forward(x), 1e-5, 1e-5));
    }
    EXPECT_TRUE(at::allclose(fused.narrow(0, 9, 3), model->host().Forward(x),
                             1e-5, 1e-5));
    EXPECT_FALSE(
        at::allclose(fused.narrow(0, 0, 3), fused.narrow(0, 9, 3), 1e-3, 1e-3));
  }
}

TEST(GrowableModelTest, FusedForwardWritesNothing) {
  const auto model = MakeModel();
  Grow(*model, "r0c0", "conv_light", SeedStage::kBlending, 0.3);
  model->eval();
  const at::Tensor x = Random({2, 1, 8, 8});
  const at::Tensor before = model->Forward(x);
  model->FusedForward(x, {{"r0c0", at::ones({2, 1, 1, 1})}});
  EXPECT_EQ((*model->FindSlot("r0c0"))->alpha(), 0.3);
  EXPECT_TRUE(at::equal(model->Forward(x), before));
}

TEST(GrowableModelTest, RefusesBadOverridesEvenWithoutSeeds) {
  const auto model = MakeModel();
  const at::Tensor x = Random({4, 1, 8, 8});
  const auto reason = [&](const std::string& slot, const at::Tensor& alpha) {
    try {
      model->FusedForward(x, {{slot, alpha}});
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), absl::StatusCode::kInvalidArgument);
      return error.reason();
    }
    return std::string("accepted");
  };
  const at::Tensor good = at::full({4, 1, 1, 1}, 0.5);
  EXPECT_EQ(reason("r0c0", good), "accepted");
  EXPECT_EQ(reason("r5c0", good), "UNKNOWN_SLOT");
  EXPECT_EQ(reason("r0c0", at::full({3, 1, 1, 1}, 0.5)), "BAD_SHAPE");
  EXPECT_EQ(reason("r0c0", at::full({4, 1, 1}, 0.5)), "BAD_SHAPE");
  EXPECT_EQ(reason("r0c0", at::full({}, 0.5)), "BAD_SHAPE");
  EXPECT_EQ(reason("r0c0", at::Tensor()), "BAD_SHAPE");
  EXPECT_EQ(reason("r0c0", good.to(at::kLong)), "BAD_ALPHA_OVERRIDE");
  for (const double value : {-0.01, 1.01, 7.5, std::nan(""),
                             std::numeric_limits<double>::infinity()}) {
    at::Tensor bad = good.clone();
    bad.select(0, 2).fill_(value);
    EXPECT_EQ(reason("r0c0", bad), "BAD_ALPHA_OVERRIDE") << value;
  }
  EXPECT_EQ(MakeModel({})->slots().size(), 0u);
  EXPECT_THROW(MakeModel({})->FusedForward(x, {{"r0c0", good}}),
               InvalidArgumentError);
}

TEST(GrowableModelTest, ParameterViewsAreHostSlotsAndGates) {
  const auto model = MakeModel();
  const int64_t host_count = 6418 - 2 * 9 * 8;
  EXPECT_EQ(model->CountParameters().total(), host_count);
  EXPECT_TRUE(model->AllSlotParameters().empty());

  Grow(*model, "r0c1", "conv_light", SeedStage::kBlending, 0.5,
       AlphaAlgorithm::kGate);
  const int64_t seed = 9 * 16 * 16 + 2 * 16, gate = 8 * (16 + 2) + 1;
  const ParameterCounts counts = model->CountParameters();
  EXPECT_EQ(counts.host_owned, host_count);
  EXPECT_EQ(counts.host_trainable, host_count);
  EXPECT_EQ(counts.seeds_owned, seed + gate);
  EXPECT_EQ(counts.seeds_trainable, seed + gate);
  int64_t viewed = 0;
  const std::vector<at::Tensor> view = model->SlotParameters("r0c1").value();
  for (const at::Tensor& parameter : view) {
    viewed += parameter.numel();
  }
  EXPECT_EQ(viewed, seed + gate);
  EXPECT_TRUE(model->SlotParameters("r0c0")->empty());
  EXPECT_THAT(model->SlotParameters("r9c9"),
              StatusIs(absl::StatusCode::kNotFound));
  EXPECT_EQ(model->parameters().size(),
            model->HostParameters().size() + model->AllSlotParameters().size());
}

TEST(GrowableModelTest, OwnedParametersStayWhileASeedIsBlendedOut) {
  const auto model = MakeModel();
  Grow(*model, "r0c0", "conv_light", SeedStage::kBlending, 1.0);
  const int64_t owned = model->CountParameters().seeds_owned;
  const slot::SlotLifecycle lifecycle = MakeLifecycle();
  slot::SeedSlot& slot = **model->FindSlot("r0c0");
  while (slot.Report()->telemetry.alpha.mode != slot::AlphaMode::kHold) {
    ASSERT_OK(lifecycle.Tick(slot).status());
  }
  slot::PruneRequest request;
  request.steps = 3;
  ASSERT_OK(lifecycle.SchedulePrune(slot, request).status());
  EXPECT_EQ(model->CountParameters().seeds_owned, owned);
  EXPECT_EQ(model->CountParameters().seeds_trainable, 0);
  for (int tick = 0; tick < 3; ++tick) {
    ASSERT_OK(lifecycle.Tick(slot).status());
  }
  EXPECT_EQ(model->CountParameters().seeds_owned, 0);
}

TEST(GrowableModelTest, CountsSeedsByStage) {
  const auto model = MakeModel();
  EXPECT_EQ(model->CountSeeds(), 0);
  Grow(*model, "r0c0", "norm", SeedStage::kFossilized);
  Grow(*model, "r0c1", "norm", SeedStage::kTraining);
  Grow(*model, "r0c2", "norm", SeedStage::kGerminated);
  EXPECT_EQ(model->CountActiveSeeds(), 2);
  EXPECT_EQ(model->CountSeeds(), 3);
  ASSERT_OK(MakeLifecycle()
                .Prune(**model->FindSlot("r0c2"), "policy_prune")
                .status());
  EXPECT_EQ(model->CountActiveSeeds(), 1);
  EXPECT_EQ(model->CountSeeds(), 2);
}

TEST(GrowableModelTest, ModeReachesHostAndSlotsAndComesBack) {
  const auto model = MakeModel();
  Grow(*model, "r0c0", "conv_light", SeedStage::kTraining);
  model->train();
  {
    ScopedEvalMode eval(*model);
    EXPECT_FALSE(model->host().is_training());
    EXPECT_FALSE(model->slots()[0]->is_training());
  }
  EXPECT_TRUE(model->host().is_training());
  EXPECT_TRUE(model->slots()[0]->is_training());
  model->eval();
  { ScopedEvalMode eval(*model); }
  EXPECT_FALSE(model->is_training());
}

TEST(GrowableModelTest, TrainingSeedLeavesTheHostAloneAndGetsTheGradient) {
  // On the same input, with and without a seed that is in training.
  const at::Tensor x = Random({8, 1, 8, 8});
  const at::Tensor labels = at::randint(10, {8}, MakeGenerator(3), at::kLong);
  const auto plain = MakeModel();
  const auto grown = MakeModel();
  Grow(*grown, "r0c1", "conv_light", SeedStage::kTraining);
  at::cross_entropy_loss(plain->Forward(x), labels).backward();
  const at::Tensor logits = grown->Forward(x);
  EXPECT_TRUE(at::equal(logits, MakeModel()->Forward(x)));
  at::cross_entropy_loss(logits, labels).backward();
  for (size_t i = 0; i < plain->HostParameters().size(); ++i) {
    EXPECT_TRUE(at::equal(plain->HostParameters()[i].grad(),
                          grown->HostParameters()[i].grad()));
  }
  for (const at::Tensor& parameter : grown->AllSlotParameters()) {
    EXPECT_GT(parameter.grad().norm().item<double>(), 0);
  }
}

TEST(GrowableModelTest, ThreadsEvaluateDifferentOverridesAtOnce) {
  const auto model = MakeModel();
  Grow(*model, "r0c0", "conv_heavy", SeedStage::kBlending, 0.5);
  Disturb(*model);
  model->eval();
  const at::Tensor x = Random({4, 1, 8, 8});
  const auto run = [&](int i) {
    at::NoGradGuard no_grad;
    return model->FusedForward(x, {{"r0c0", at::full({4, 1, 1, 1}, i / 8.0)}});
  };
  std::vector<at::Tensor> expected(8), actual(8);
  for (int i = 0; i < 8; ++i) expected[i] = run(i);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      for (int repeat = 0; repeat < 10; ++repeat) actual[i] = run(i);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < 8; ++i) {
    EXPECT_TRUE(at::equal(actual[i], expected[i])) << i;
  }
}

// --- Group norm on channels_last input without gradient ---

class ChannelsLastTest
    : public ::testing::TestWithParam<
          std::tuple<std::string, SeedStage, AlphaAlgorithm>> {};

// Trains once and ends the process; a crash ends it otherwise.
void TrainOnceAndExit(const std::string& blueprint, SeedStage stage,
                      AlphaAlgorithm algorithm) {
  at::set_num_threads(1);
  CnnHostOptions options;
  options.base_channels = 16;
  options.channels_last = true;
  const auto model =
      GrowableModel::Create(CnnHost::Create(options, 1).value(), {"r0c0"})
          .value();
  Grow(*model, "r0c0", blueprint, stage, 0.5, algorithm);
  const at::Tensor x = Random({8, 3, 16, 16});
  if (!model->host().ForwardToSegment("r0c0", x).is_contiguous(
          at::MemoryFormat::ChannelsLast)) {
    std::_Exit(3);
  }
  const at::Tensor loss = model->Forward(x).square().mean();
  loss.backward();
  double sum = loss.item<double>();
  for (const at::Tensor& parameter : model->parameters()) {
    if (parameter.grad().defined())
      sum += parameter.grad().sum().item<double>();
  }
  std::_Exit(std::isfinite(sum) ? 0 : 4);
}

TEST_P(ChannelsLastTest, ForwardAndBackwardSurviveDeathTest) {
  const auto& [blueprint, stage, algorithm] = GetParam();
  EXPECT_EXIT(TrainOnceAndExit(blueprint, stage, algorithm),
              ::testing::ExitedWithCode(0), "");
}

std::string NameOf(
    const ::testing::TestParamInfo<ChannelsLastTest::ParamType>& info) {
  const auto& [blueprint, stage, algorithm] = info.param;
  return blueprint + "_" +
         (stage == SeedStage::kTraining ? "STE"
                                        : slot::AlphaAlgorithmName(algorithm));
}

const auto kEveryCnnBlueprint =
    ::testing::Values("noop", "norm", "attention", "conv_small", "bottleneck",
                      "depthwise", "conv_light", "conv_heavy");

INSTANTIATE_TEST_SUITE_P(
    Ste, ChannelsLastTest,
    ::testing::Combine(kEveryCnnBlueprint,
                       ::testing::Values(SeedStage::kTraining),
                       ::testing::Values(AlphaAlgorithm::kAdd)),
    NameOf);
INSTANTIATE_TEST_SUITE_P(
    Blend, ChannelsLastTest,
    ::testing::Combine(kEveryCnnBlueprint,
                       ::testing::Values(SeedStage::kBlending),
                       ::testing::Values(AlphaAlgorithm::kAdd,
                                         AlphaAlgorithm::kMultiply,
                                         AlphaAlgorithm::kGate)),
    NameOf);

// When this test fails, the framework no longer crashes here and the copy in
// front of normalising seeds can go.
TEST(ChannelsLastCanaryTest, FrameworkStillCrashesOnBareGroupNormDeathTest) {
  EXPECT_DEATH(
      {
        at::set_num_threads(1);
        const at::Tensor x =
            Random({8, 16, 16, 16}).contiguous(at::MemoryFormat::ChannelsLast);
        const at::Tensor weight = at::ones({16}).requires_grad_(true);
        const at::Tensor bias = at::zeros({16}).requires_grad_(true);
        at::group_norm(x, 1, weight, bias).square().mean().backward();
      },
      "");
}

// --- Counterfactual evaluation ---

std::vector<ValidationBatch> Batches(int count = 2, int64_t rows = 40) {
  std::vector<ValidationBatch> batches;
  for (int i = 0; i < count; ++i) {
    batches.push_back(
        {Random({rows, 1, 8, 8}, 40 + i),
         at::randint(10, {rows}, MakeGenerator(60 + i), at::kLong)});
  }
  return batches;
}

std::shared_ptr<GrowableModel> BlendingModel(
    const std::vector<std::string>& slots) {
  const auto model = MakeModel(slots);
  const char* blueprints[] = {"conv_light", "depthwise", "attention", "norm",
                              "conv_small"};
  for (size_t i = 0; i < slots.size(); ++i) {
    Grow(*model, slots[i], blueprints[i % 5], SeedStage::kBlending,
         0.3 + 0.1 * i);
  }
  Disturb(*model);
  model->eval();
  return model;
}

TEST(CounterfactualEvalTest, ConfigurationsEqualTheFusedForward) {
  for (const auto& slots : std::vector<std::vector<std::string>>{
           {"r0c1"},
           {"r0c0", "r0c2"},
           {"r0c0", "r0c1", "r1c0"},
           {"r0c0", "r0c1", "r0c2", "r1c1"},
           {"r0c0", "r0c1", "r0c2", "r1c0", "r1c1"}}) {
    const auto model = BlendingModel(slots);
    const slot::CounterfactualPlan plan = *PlanCounterfactuals(*model);
    ASSERT_EQ(plan.num_slots(), static_cast<int>(slots.size()));
    const at::Tensor x = Random({5, 1, 8, 8});
    std::vector<at::Tensor> inputs;
    AlphaOverrides overrides;
    for (int i = 0; i < plan.num_slots(); ++i) {
      std::vector<at::Tensor> column;
      for (int k = 0; k < plan.num_configurations(); ++k) {
        column.push_back(at::full({5, 1, 1, 1}, plan.Alpha(k, i)));
      }
      overrides[plan.slots()[i].slot] = at::cat(column);
    }
    for (int k = 0; k < plan.num_configurations(); ++k) inputs.push_back(x);
    const at::Tensor fused = model->FusedForward(at::cat(inputs), overrides);
    const at::Tensor logits = ForwardConfigurations(*model, plan, x);
    ASSERT_EQ(logits.sizes(),
              at::IntArrayRef({plan.num_configurations(), 5, 10}));
    EXPECT_TRUE(at::allclose(logits.flatten(0, 1), fused, 1e-4, 1e-5))
        << slots.size() << " slots";
  }
}

TEST(CounterfactualEvalTest, MeasuresWhatSeparateForwardsMeasure) {
  const auto model = BlendingModel({"r0c0", "r0c1", "r0c2"});
  const std::vector<ValidationBatch> batches = Batches();
  const auto result = EvaluateCounterfactuals(*model, batches);
  ASSERT_THAT(result, IsOk());
  const auto accuracy = [&](const std::vector<std::string>& off) {
    int64_t correct = 0;
    for (const ValidationBatch& batch : batches) {
      AlphaOverrides overrides;
      for (const std::string& slot : off) {
        overrides[slot] = at::zeros({batch.inputs.size(0), 1, 1, 1});
      }
      const at::Tensor logits = model->FusedForward(batch.inputs, overrides);
      correct += (at::argmax(logits, 1) == batch.labels).sum().item<int64_t>();
    }
    return 100.0 * correct / 80;
  };
  EXPECT_EQ(result->samples, 80);
  EXPECT_DOUBLE_EQ(result->val_accuracy, accuracy({}));
  EXPECT_DOUBLE_EQ(result->all_off_accuracy.value(),
                   accuracy({"r0c0", "r0c1", "r0c2"}));
  for (const slot::SlotAttribution& slot : result->slots) {
    EXPECT_DOUBLE_EQ(slot.baseline, accuracy({slot.slot}));
  }
  EXPECT_EQ(result->pairs.size(), 3u);
  double loss = 0;
  for (const ValidationBatch& batch : batches) {
    loss += at::cross_entropy_loss(model->Forward(batch.inputs), batch.labels)
                .item<double>();
  }
  EXPECT_NEAR(result->val_loss, loss / 2, 1e-5);
}

TEST(CounterfactualEvalTest, LeavesModelAndGeneratorsAlone) {
  const auto model = BlendingModel({"r0c0", "r0c1"});
  const at::Tensor x = Random({3, 1, 8, 8});
  const at::Tensor before = model->Forward(x).detach();
  const at::Tensor state =
      at::detail::getDefaultCPUGenerator().get_state().clone();
  ASSERT_THAT(EvaluateCounterfactuals(*model, Batches()), IsOk());
  EXPECT_TRUE(at::equal(model->Forward(x), before));
  EXPECT_TRUE(
      at::equal(at::detail::getDefaultCPUGenerator().get_state(), state));
  // And what it touched can still be trained.
  model->train();
  model->Forward(x).sum().backward();
  EXPECT_TRUE(model->AllSlotParameters()[0].grad().defined());
}

TEST(CounterfactualEvalTest, OnlySeedsThatBlendAreEligible) {
  const auto model = MakeModel();
  Grow(*model, "r0c0", "conv_light", SeedStage::kTraining);
  Grow(*model, "r0c1", "conv_light", SeedStage::kFossilized);
  model->eval();
  const auto result = EvaluateCounterfactuals(*model, Batches());
  ASSERT_THAT(result, IsOk());
  EXPECT_TRUE(result->slots.empty());
  EXPECT_FALSE(result->all_off_accuracy.has_value());

  slot::CounterfactualPlan::Options options;
  options.include_fossilized = true;
  const auto with_fossils = EvaluateCounterfactuals(*model, Batches(), options);
  ASSERT_EQ(with_fossils->slots.size(), 1u);
  EXPECT_EQ(with_fossils->slots[0].slot, "r0c1");
  EXPECT_DOUBLE_EQ(with_fossils->committed_accuracy,
                   with_fossils->val_accuracy);
}

TEST(CounterfactualEvalTest, RefusesTrainingModeStalePlansAndBadBatches) {
  const auto model = BlendingModel({"r0c0"});
  const slot::CounterfactualPlan plan = *PlanCounterfactuals(*model);
  const auto failed = absl::StatusCode::kFailedPrecondition;
  const auto invalid = absl::StatusCode::kInvalidArgument;

  model->train();
  EXPECT_THAT(CountCounterfactuals(*model, plan, Batches()),
              Refused(failed, "TRAINING_MODE"));
  model->eval();
  EXPECT_THAT(CountCounterfactuals(*model, plan, Batches()), IsOk());
  EXPECT_THAT(CountCounterfactuals(*model, plan, {}),
              Refused(invalid, "BAD_BATCH"));
  std::vector<ValidationBatch> bad = Batches();
  bad[1].labels = bad[1].labels.narrow(0, 0, 39);
  EXPECT_THAT(CountCounterfactuals(*model, plan, bad),
              Refused(invalid, "BAD_BATCH"));
  bad[1].labels = at::zeros({40});
  EXPECT_THAT(CountCounterfactuals(*model, plan, bad),
              Refused(invalid, "BAD_BATCH"));
  bad[1].inputs = bad[1].inputs.narrow(0, 0, 0);
  EXPECT_THAT(CountCounterfactuals(*model, plan, bad),
              Refused(invalid, "BAD_BATCH"));
  EXPECT_THAT(CountCounterfactuals(*MakeModel({"r1c0"}), plan, Batches()),
              Refused(failed, "TRAINING_MODE"));
  const auto other = MakeModel({"r1c0"});
  other->eval();
  EXPECT_THAT(CountCounterfactuals(*other, plan, Batches()),
              Refused(absl::StatusCode::kNotFound, "UNKNOWN_SLOT"));
  ASSERT_OK(MakeLifecycle().SetAlpha(**model->FindSlot("r0c0"), 0.9).status());
  EXPECT_THAT(CountCounterfactuals(*model, plan, Batches()),
              Refused(failed, "STALE_PLAN"));
}

}  // namespace
}  // namespace esper::host

int main(int argc, char** argv) {
  ::testing::InitGoogleMock(&argc, argv);
  // Children start afresh: LibTorch's threads do not survive a fork.
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  return RUN_ALL_TESTS();
}
