// Retargets, scheduled prunes, operator switches and the blend-out freeze.

#include <ATen/ops/arange.h>
#include <ATen/ops/sin.h>

#include <limits>
#include <string>
#include <vector>

#include "core/slot/slot_lifecycle.h"
#include "gtest/gtest.h"
#include "tests/core/slot/test_seeds.h"
#include "tests/testing/status_matchers.h"

namespace esper::slot {
namespace {

using ::esper::testing::GrowTo;
using ::esper::testing::IsOk;
using ::esper::testing::MakeLifecycle;
using ::esper::testing::MakeSlot;
using ::esper::testing::StatusIs;
using S = SeedStage;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

AlphaTargetRequest To(double target, int64_t steps) {
  AlphaTargetRequest request;
  request.target = target;
  request.steps = steps;
  request.curve = AlphaCurve::kLinear;
  return request;
}

PruneRequest Over(int64_t steps) {
  PruneRequest request;
  request.steps = steps;
  request.curve = AlphaCurve::kLinear;
  return request;
}

at::Tensor Features() {
  return at::sin(at::arange(72).mul(0.7)).reshape({2, 4, 3, 3});
}

class AlphaLifecycleTest : public ::testing::Test {
 protected:
  double alpha() const { return slot_->alpha(); }
  void Tick() { ASSERT_OK(lifecycle_.Tick(*slot_).status()); }
  bool trainable() const { return slot_->Report()->trainable; }

  const SlotLifecycle lifecycle_ = MakeLifecycle();
  const std::shared_ptr<SeedSlot> slot_ = MakeSlot();
};

TEST_F(AlphaLifecycleTest, RampsAtTheTempoOfGermination) {
  GerminateRequest request;
  request.tempo = 4;
  request.blend_id = "linear";
  request.alpha_target = 0.8;
  GrowTo(lifecycle_, *slot_, S::kBlending, request);
  for (const double expected : {0.2, 0.4, 0.6, 0.8, 0.8}) {
    Tick();
    EXPECT_NEAR(alpha(), expected, 1e-12);
  }
  // A partial target is not full enough to hold.
  EXPECT_EQ(lifecycle_.Advance(*slot_).refusal(), Refusal::kGateFailed);
  ASSERT_OK(lifecycle_.SetAlphaTarget(*slot_, To(1, 2)).status());
  Tick();
  EXPECT_NEAR(alpha(), 0.9, 1e-12);
  Tick();
  EXPECT_OK(lifecycle_.Advance(*slot_).status());
  EXPECT_EQ(slot_->stage(), S::kHolding);
}

TEST_F(AlphaLifecycleTest, RetargetingDownFromHoldingBlendsAgain) {
  GrowTo(lifecycle_, *slot_, S::kHolding);
  ASSERT_OK(lifecycle_.SetAlphaTarget(*slot_, To(0.5, 2)).status());
  EXPECT_EQ(slot_->stage(), S::kBlending);
  EXPECT_EQ(alpha(), 1);
  EXPECT_FALSE(trainable());
  EXPECT_EQ(lifecycle_.SetAlphaTarget(*slot_, To(1, 2)).refusal(),
            Refusal::kAlphaMoving);
  EXPECT_EQ(lifecycle_.SchedulePrune(*slot_, Over(2)).refusal(),
            Refusal::kAlphaMoving);
  Tick();
  EXPECT_NEAR(alpha(), 0.75, 1e-12);
  EXPECT_FALSE(trainable());
  Tick();
  // Free again in the very tick that ends the ramp.
  EXPECT_EQ(alpha(), 0.5);
  EXPECT_TRUE(trainable());
}

TEST_F(AlphaLifecycleTest, RetargetToFullInHoldingStays) {
  GrowTo(lifecycle_, *slot_, S::kHolding);
  ASSERT_OK(lifecycle_.SetAlphaTarget(*slot_, To(1, 3)).status());
  EXPECT_EQ(slot_->stage(), S::kHolding);
  EXPECT_EQ(slot_->Report()->telemetry.time_to_target, 0);
}

TEST_F(AlphaLifecycleTest, InstantRetargetShowsAtOnce) {
  GrowTo(lifecycle_, *slot_, S::kHolding);
  ASSERT_OK(lifecycle_.SetAlphaTarget(*slot_, To(0.5, 0)).status());
  EXPECT_EQ(alpha(), 0.5);
  EXPECT_EQ(slot_->plan()->alpha.item<double>(), 0.5);
  EXPECT_EQ(slot_->Report()->metrics.current_alpha, 0.5);
  EXPECT_TRUE(trainable());
}

TEST_F(AlphaLifecycleTest, TelemetryShowsTheCurveAndOperatorOfNow) {
  GrowTo(lifecycle_, *slot_, S::kHolding);
  AlphaTargetRequest request = To(0.5, 4);
  request.curve = AlphaCurve::kCosine;
  request.steepness = 6;
  request.algorithm = AlphaAlgorithm::kMultiply;
  ASSERT_OK(lifecycle_.SetAlphaTarget(*slot_, request).status());
  const SeedTelemetry telemetry = slot_->Report()->telemetry;
  EXPECT_EQ(telemetry.alpha.curve, AlphaCurve::kCosine);
  EXPECT_EQ(telemetry.alpha.steepness, 6);
  EXPECT_EQ(telemetry.algorithm, AlphaAlgorithm::kMultiply);
  EXPECT_EQ(telemetry.time_to_target, 4);
  EXPECT_EQ(telemetry.alpha_velocity, -0.125);
}

TEST_F(AlphaLifecycleTest, RetargetRefusesOtherStagesAndBadNumbers) {
  GrowTo(lifecycle_, *slot_, S::kTraining);
  EXPECT_EQ(lifecycle_.SetAlphaTarget(*slot_, To(0.5, 2)).refusal(),
            Refusal::kWrongStage);
  const auto holding = MakeSlot();
  GrowTo(lifecycle_, *holding, S::kHolding);
  const auto plan = holding->plan();
  for (const double bad : {0.0, -0.1, kNan}) {
    EXPECT_THAT(lifecycle_.SetAlphaTarget(*holding, To(bad, 2)).status(),
                StatusIs(kInvalid));
  }
  AlphaTargetRequest steep = To(0.5, 2);
  steep.steepness = kNan;
  steep.algorithm = AlphaAlgorithm::kGate;
  EXPECT_THAT(lifecycle_.SetAlphaTarget(*holding, steep).status(),
              StatusIs(kInvalid));
  EXPECT_THAT(lifecycle_.SetAlpha(*holding, kNan).status(), StatusIs(kInvalid));
  EXPECT_EQ(holding->plan(), plan);
  EXPECT_EQ(holding->stage(), S::kHolding);
  EXPECT_FALSE(holding->Report()->has_gate);
}

TEST_F(AlphaLifecycleTest, SwitchingToGateHardlyMovesTheOutput) {
  GrowTo(lifecycle_, *slot_, S::kBlending);
  ASSERT_OK(lifecycle_.SetAlpha(*slot_, 0.6).status());
  for (int i = 0; i < 5; ++i) Tick();  // The ramp ends at 1.
  ASSERT_OK(lifecycle_.SetAlpha(*slot_, 0.6).status());
  const at::Tensor host = Features();
  const at::Tensor before = slot_->forward(host).detach();
  const uint64_t generation = slot_->parameter_generation();
  AlphaTargetRequest request = To(1, 3);
  request.algorithm = AlphaAlgorithm::kGate;
  ASSERT_OK(lifecycle_.SetAlphaTarget(*slot_, request).status());
  EXPECT_NE(slot_->parameter_generation(), generation);
  EXPECT_EQ(slot_->SeedParameters().size(), 3 + 4);
  EXPECT_EQ(slot_->Report()->telemetry.algorithm, AlphaAlgorithm::kGate);
  const at::Tensor change = slot_->forward(host).detach().sub(before).abs();
  const at::Tensor span = before.sub(host).abs();  // a |s - h|.
  EXPECT_TRUE(change.le(span.mul(0.02).add(1e-6)).all().item<bool>());
  EXPECT_GT(change.max().item<double>(), 0);

  // Back: the gate goes, and optimisers must know.
  for (int i = 0; i < 3; ++i) Tick();
  const uint64_t with_gate = slot_->parameter_generation();
  request = To(0.5, 0);
  request.algorithm = AlphaAlgorithm::kMultiply;
  ASSERT_OK(lifecycle_.SetAlphaTarget(*slot_, request).status());
  EXPECT_NE(slot_->parameter_generation(), with_gate);
  EXPECT_EQ(slot_->SeedParameters().size(), 3);
  EXPECT_FALSE(slot_->Report()->has_gate);
  EXPECT_FALSE(slot_->named_parameters().contains("gate.gate.0.weight"));
}

TEST_F(AlphaLifecycleTest, AGateParameterLearnsInBlending) {
  GerminateRequest request;
  request.algorithm = AlphaAlgorithm::kGate;
  request.blend_id = "gated";
  GrowTo(lifecycle_, *slot_, S::kBlending, request);
  Tick();
  slot_->forward(Features()).sum().backward();
  for (const at::Tensor& parameter : slot_->SeedParameters()) {
    EXPECT_TRUE(parameter.grad().defined());
  }
  slot_->zero_grad();
  for (const auto& item : slot_->named_parameters()) {
    EXPECT_FALSE(item.value().grad().defined()) << item.key();
  }
}

TEST_F(AlphaLifecycleTest, ScheduledPruneFromBlendingFadesOutFrozen) {
  GrowTo(lifecycle_, *slot_, S::kBlending);
  for (int i = 0; i < 5; ++i) Tick();
  const auto parameters = slot_->SeedParameters();
  ASSERT_OK(lifecycle_.SchedulePrune(*slot_, Over(4)).status());
  for (const double expected : {0.75, 0.5, 0.25}) {
    for (const at::Tensor& parameter : parameters) {
      EXPECT_FALSE(parameter.requires_grad());
    }
    EXPECT_EQ(slot_->SeedParameters().size(), parameters.size());
    Tick();
    EXPECT_NEAR(alpha(), expected, 1e-12);
    EXPECT_EQ(slot_->stage(), S::kBlending);
  }
  Tick();
  EXPECT_EQ(slot_->stage(), S::kPruned);
  EXPECT_EQ(alpha(), 0);
  EXPECT_TRUE(slot_->forward(Features()).defined());
}

TEST_F(AlphaLifecycleTest, ScheduledPruneFromHoldingBlendsFirst) {
  GrowTo(lifecycle_, *slot_, S::kHolding);
  ASSERT_OK(lifecycle_.SchedulePrune(*slot_, Over(2)).status());
  EXPECT_EQ(slot_->stage(), S::kBlending);
  Tick();
  EXPECT_NEAR(alpha(), 0.5, 1e-12);
  Tick();
  EXPECT_EQ(slot_->stage(), S::kPruned);
}

TEST_F(AlphaLifecycleTest, PruneIsImmediateWhereThereIsNothingToFade) {
  for (const S stage : {S::kGerminated, S::kTraining}) {
    const auto slot = MakeSlot();
    GrowTo(lifecycle_, *slot, stage);
    ASSERT_OK(lifecycle_.SchedulePrune(*slot, Over(5)).status());
    EXPECT_EQ(slot->stage(), S::kPruned);
  }
  const auto fresh = MakeSlot();
  GrowTo(lifecycle_, *fresh, S::kBlending);  // Alpha is still 0.
  ASSERT_OK(lifecycle_.SchedulePrune(*fresh, Over(5)).status());
  EXPECT_EQ(fresh->stage(), S::kPruned);
  const auto holding = MakeSlot();
  GrowTo(lifecycle_, *holding, S::kHolding);
  ASSERT_OK(lifecycle_.SchedulePrune(*holding, Over(0)).status());
  EXPECT_EQ(holding->stage(), S::kPruned);
}

TEST_F(AlphaLifecycleTest, PruneOverridesAMovingRamp) {
  GrowTo(lifecycle_, *slot_, S::kBlending);
  Tick();
  ASSERT_OK(lifecycle_.Prune(*slot_, "governor_nan", "governor").status());
  EXPECT_EQ(slot_->stage(), S::kPruned);
  EXPECT_EQ(slot_->TakeAutoPrune(), "governor_nan");
}

TEST_F(AlphaLifecycleTest, FreezingKeepsWhatTheOwnerHadFrozen) {
  GrowTo(lifecycle_, *slot_, S::kHolding);
  at::Tensor mine = slot_->SeedParameters()[1];
  mine.set_requires_grad(false);
  ASSERT_OK(lifecycle_.SetAlphaTarget(*slot_, To(0.5, 2)).status());
  Tick();
  Tick();
  EXPECT_TRUE(slot_->SeedParameters()[0].requires_grad());
  EXPECT_FALSE(mine.requires_grad());
  EXPECT_TRUE(slot_->SeedParameters()[2].requires_grad());
}

TEST_F(AlphaLifecycleTest, FrozenSeedStillPassesGradientToACoupledHost) {
  const auto slot = MakeSlot(Topology::kTransformer);
  GrowTo(lifecycle_, *slot, S::kHolding);
  ASSERT_OK(lifecycle_.SetAlphaTarget(*slot, To(0.5, 4)).status());
  const at::Tensor host = at::sin(at::arange(40).mul(0.7))
                              .reshape({2, 5, 4})
                              .set_requires_grad(true);
  slot->forward(host).sum().backward();
  // At alpha 1 all of the host's gradient comes through the seed.
  EXPECT_GT(host.grad().abs().max().item<double>(), 0);
  for (const at::Tensor& parameter : slot->SeedParameters()) {
    EXPECT_FALSE(parameter.grad().defined());
  }
  EXPECT_FALSE(slot->CaptureGradients({}));
}

TEST_F(AlphaLifecycleTest, SetAlphaClampsAndPublishes) {
  GrowTo(lifecycle_, *slot_, S::kBlending);
  ASSERT_OK(lifecycle_.SetAlpha(*slot_, 7.5).status());
  EXPECT_EQ(alpha(), 1);
  ASSERT_OK(lifecycle_.SetAlpha(*slot_, -2).status());
  EXPECT_EQ(alpha(), 0);
  ASSERT_OK(lifecycle_.Prune(*slot_, "x").status());
  EXPECT_EQ(lifecycle_.SetAlpha(*slot_, 1).refusal(), Refusal::kCoolingDown);
}

}  // namespace
}  // namespace esper::slot
