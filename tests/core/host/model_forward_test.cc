// What a forward pass of a model with slots runs, which state of the slots it
// sees, and models that move to another dtype or device.

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/sin.h>
#include <ATen/record_function.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/host/cnn_blueprints.h"
#include "core/host/cnn_host.h"
#include "core/host/growable_model.h"
#include "core/slot/slot_lifecycle.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/host/plain_host.h"
#include "tests/core/slot/test_seeds.h"
#include "tests/testing/status_matchers.h"

namespace esper::host {
namespace {

using ::esper::testing::GrowTo;
using ::esper::testing::PlainHost;
using slot::SeedStage;
using ::testing::ElementsAre;

// Every operator that runs on this thread, in order.
std::vector<std::string> OperatorsOf(const std::function<void()>& run) {
  static thread_local std::vector<std::string>* names = nullptr;
  std::vector<std::string> ran;
  names = &ran;
  const auto note = [](const at::RecordFunction& function)
      -> std::unique_ptr<at::ObserverContext> {
    names->push_back(function.name());
    return nullptr;
  };
  const auto handle = at::addThreadLocalCallback(
      at::RecordFunctionCallback(note).scopes({at::RecordScope::FUNCTION}));
  run();
  at::removeCallback(handle);
  names = nullptr;
  return ran;
}

slot::SlotLifecycle BlueprintLifecycle() {
  slot::SlotLifecycle::Options options;
  options.registry = &DefaultBlueprints();
  return slot::SlotLifecycle::Create(options).value();
}

std::shared_ptr<CnnHost> MakeHost() {
  CnnHostOptions options;
  options.base_channels = 8;
  return CnnHost::Create(options, /*seed=*/3).value();
}

std::shared_ptr<GrowableModel> MakeModel() {
  return GrowableModel::Create(MakeHost(), {"r0c0", "r0c1", "r1c0", "r0c2"})
      .value();
}

at::Tensor Images() {
  return at::sin(at::arange(2 * 3 * 16 * 16).mul(0.37)).reshape({2, 3, 16, 16});
}

TEST(ModelForwardTest, EmptySlotsRunTheVeryOperatorsOfTheHost) {
  const auto bare = MakeHost();
  const auto model = MakeModel();
  const at::Tensor x = Images();
  for (const bool training : {true, false}) {
    bare->train(training);
    model->train(training);
    const auto expected = OperatorsOf([&] { bare->Forward(x); });
    EXPECT_GT(expected.size(), 5);
    EXPECT_EQ(OperatorsOf([&] { model->Forward(x); }), expected);
  }
}

TEST(ModelForwardTest, AFossilAddsItsSeedAndOneBlend) {
  const auto model = MakeModel();
  model->eval();
  const at::NoGradGuard no_grad;
  const at::Tensor x = Images();
  const auto empty = OperatorsOf([&] { model->Forward(x); });
  slot::SeedSlot& slot = **model->FindSlot("r0c1");
  slot::GerminateRequest request;
  request.blueprint_id = "conv_light";
  GrowTo(BlueprintLifecycle(), slot, SeedStage::kFossilized, request);
  const at::Tensor features = model->host().ForwardToSegment("r0c1", x);
  const auto seed = OperatorsOf([&] { slot.forward(features); });
  EXPECT_EQ(OperatorsOf([&] { model->Forward(x); }).size(),
            empty.size() + seed.size());
}

class PlainModelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto model = GrowableModel::Create(host_, {"r0c0", "r0c1"});
    ASSERT_OK(model);
    model_ = *std::move(model);
    model_->eval();
    host_->on_layer = [this](int from) { runs_.push_back(from); };
  }
  slot::SeedSlot& slot(int i) { return *model_->slots()[i]; }

  const slot::SlotLifecycle lifecycle_ = testing::MakeLifecycle();
  const std::shared_ptr<PlainHost> host_ = std::make_shared<PlainHost>();
  std::shared_ptr<GrowableModel> model_;
  std::vector<int> runs_;  // Where each run of the host began.
  const at::Tensor x_ = at::sin(at::arange(72).mul(0.7)).reshape({2, 4, 3, 3});
};

TEST_F(PlainModelTest, TheHostStopsOnlyWhereASeedShows) {
  model_->Forward(x_);
  EXPECT_THAT(runs_, ElementsAre(Host::kInput));
  runs_.clear();
  GrowTo(lifecycle_, slot(1), SeedStage::kHolding);
  model_->Forward(x_);
  EXPECT_THAT(runs_, ElementsAre(Host::kInput, 1));
  // A training seed shows in the graph alone.
  GrowTo(lifecycle_, slot(0), SeedStage::kTraining);
  runs_.clear();
  model_->Forward(x_);
  EXPECT_THAT(runs_, ElementsAre(Host::kInput, 0, 1));
  const at::NoGradGuard no_grad;
  runs_.clear();
  model_->Forward(x_);
  EXPECT_THAT(runs_, ElementsAre(Host::kInput, 1));
}

TEST_F(PlainModelTest, SlotsAreSeenAsTheyWereWhenTheForwardBegan) {
  for (int i = 0; i < 2; ++i) GrowTo(lifecycle_, slot(i), SeedStage::kHolding);
  const at::Tensor expected = model_->Forward(x_);
  // Between the slots, both lose their seeds.
  host_->on_layer = [this](int from) {
    if (from != 0) return;
    for (int i = 0; i < 2; ++i) {
      ASSERT_OK(lifecycle_.Prune(slot(i), "test").status());
    }
  };
  EXPECT_TRUE(at::equal(model_->Forward(x_), expected));
  host_->on_layer = [](int) {};
  EXPECT_TRUE(at::equal(model_->Forward(x_), x_));
}

// Seeds in every operator, and an empty slot.
std::shared_ptr<GrowableModel> MakeGrown() {
  const auto model = MakeModel();
  const auto lifecycle = BlueprintLifecycle();
  const slot::AlphaAlgorithm algorithms[] = {slot::AlphaAlgorithm::kAdd,
                                             slot::AlphaAlgorithm::kMultiply,
                                             slot::AlphaAlgorithm::kGate};
  for (int i = 0; i < 3; ++i) {
    slot::GerminateRequest request;
    request.blueprint_id = "conv_light";
    request.algorithm = algorithms[i];
    if (i == 2) request.blend_id = "gated";
    GrowTo(lifecycle, *model->slots()[i], SeedStage::kBlending, request);
    EXPECT_OK(lifecycle.SetAlpha(*model->slots()[i], 0.7).status());
  }
  model->eval();
  return model;
}

void ExpectHoused(const GrowableModel& model, const at::TensorOptions& where) {
  const auto lifecycle = BlueprintLifecycle();
  for (const auto& slot : model.slots()) {
    EXPECT_EQ(slot->options().device, where.device());
    EXPECT_EQ(slot->options().dtype, where.dtype().toScalarType());
    if (slot->empty()) {
      slot::GerminateRequest request;
      request.blueprint_id = "norm";
      GrowTo(lifecycle, *slot, SeedStage::kBlending, request);
    }
    const at::Tensor alpha = slot->plan()->alpha;
    EXPECT_EQ(alpha.device(), where.device());
    EXPECT_EQ(alpha.scalar_type(), where.dtype().toScalarType());
    EXPECT_EQ(slot->plan()->alpha_buffer.device(), where.device());
    EXPECT_EQ(slot->plan()->alpha_buffer.item<double>(), slot->alpha());
    for (const at::Tensor& parameter : slot->SeedParameters()) {
      EXPECT_EQ(parameter.device(), where.device());
      EXPECT_EQ(parameter.scalar_type(), where.dtype().toScalarType());
    }
  }
}

TEST(ModelMoveTest, SlotsFollowToAnotherDtype) {
  const auto model = MakeGrown();
  const at::Tensor before = model->Forward(Images());
  const uint64_t structure = model->slots()[0]->plan()->structure;
  model->to(at::kDouble);
  const at::Tensor after = model->Forward(Images().to(at::kDouble));
  EXPECT_EQ(after.scalar_type(), at::kDouble);
  EXPECT_TRUE(at::allclose(after, before.to(at::kDouble), 1e-5, 1e-5));
  // Not the single-precision 0.7 that the slot had.
  EXPECT_EQ(model->slots()[0]->plan()->alpha.item<double>(), 0.7);
  EXPECT_NE(model->slots()[0]->plan()->structure, structure);
  ExpectHoused(*model, at::TensorOptions(at::kDouble));
}

TEST(ModelMoveTest, SlotsStayOnAFloatingDtype) {
  const auto slot = testing::MakeSlot();
  GrowTo(testing::MakeLifecycle(), *slot, SeedStage::kBlending);
  EXPECT_THROW(slot->to(at::kLong), InvalidArgumentError);
  EXPECT_THROW(slot->to(at::kCPU, at::kInt), InvalidArgumentError);
  EXPECT_EQ(slot->options().dtype, at::kFloat);
  EXPECT_EQ(slot->SeedParameters()[0].scalar_type(), at::kFloat);
}

TEST(ModelMoveTest, SlotsFollowToAnotherDevice) {
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
  const auto model = MakeGrown();
  const at::Tensor before = model->Forward(Images());
  model->to(at::Device(at::kCUDA, 0));
  const at::Tensor after = model->Forward(Images().to(at::kCUDA));
  EXPECT_TRUE(at::allclose(after.cpu(), before, 1e-3, 1e-3));
  ExpectHoused(*model, at::TensorOptions(at::kFloat).device(at::kCUDA, 0));
  model->to(at::Device(at::kCPU));
  EXPECT_TRUE(at::allclose(model->Forward(Images()), before, 1e-3, 1e-3));
}

}  // namespace
}  // namespace esper::host
