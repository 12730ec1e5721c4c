// What a captured graph sees of a slot. The rules are the host's and are
// tested here with a pretended capture; cuda_graph_test.cc captures really.

#include "core/slot/replay_guard.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sin.h>

#include <memory>

#include "core/slot/force_alpha.h"
#include "core/slot/slot_lifecycle.h"
#include "gtest/gtest.h"
#include "tests/core/slot/test_seeds.h"
#include "tests/testing/status_matchers.h"

namespace esper::slot {
namespace {

using at::Tensor;
using ::esper::testing::GrowTo;
using ::esper::testing::IsOk;
using ::esper::testing::MakeLifecycle;
using ::esper::testing::MakeSlot;
using ::esper::testing::Refused;
using ::esper::testing::ScopedCapture;
using S = SeedStage;

constexpr auto kState = absl::StatusCode::kFailedPrecondition;

Tensor Features() {
  return at::sin(at::arange(72).mul(0.7)).reshape({2, 4, 3, 3});
}

class ReplayGuardTest : public ::testing::Test {
 protected:
  absl::Status Check(const ReplayGuard& guard) { return guard.CheckReplay(); }
  ReplayGuard Capture() { return ReplayGuard({slot_}); }

  const SlotLifecycle lifecycle_ = MakeLifecycle();
  const std::shared_ptr<SeedSlot> slot_ = MakeSlot();
};

TEST_F(ReplayGuardTest, AlphaChangesInPlaceForTheWholeLifeOfASeed) {
  GrowTo(lifecycle_, *slot_, S::kBlending);
  const auto first = slot_->plan();
  const Tensor buffer = first->alpha_buffer;
  EXPECT_EQ(buffer.scalar_type(), at::kDouble);
  for (const double alpha : {0.3, 0.7, 1.0, 0.0}) {
    ASSERT_OK(lifecycle_.SetAlpha(*slot_, alpha).status());
    EXPECT_TRUE(slot_->plan()->alpha_buffer.is_same(buffer));
    EXPECT_EQ(buffer.item<double>(), alpha);
  }
  ASSERT_OK(lifecycle_.Prune(*slot_, "test").status());
  EXPECT_EQ(buffer.item<double>(), 0);
}

TEST_F(ReplayGuardTest, AlphaOfAPlanIsNeverWrittenAgain) {
  GrowTo(lifecycle_, *slot_, S::kBlending);
  ASSERT_OK(lifecycle_.SetAlpha(*slot_, 0.5).status());
  const auto plan = slot_->plan();
  const auto version = plan->alpha._version();
  // A graph that saved alpha can still run backward after a change of it.
  const Tensor host = Features().set_requires_grad(true);
  const Tensor out = slot_->forward(host);
  ASSERT_OK(lifecycle_.SetAlpha(*slot_, 0.75).status());
  EXPECT_EQ(plan->alpha.item<double>(), 0.5);
  EXPECT_EQ(plan->alpha._version(), version);
  out.sum().backward();
  EXPECT_NEAR(host.grad()[0][0][0][0].item<double>(), 0.5, 1e-6);
}

TEST_F(ReplayGuardTest, OnlyForwardsUnderCaptureReadTheBuffer) {
  GrowTo(lifecycle_, *slot_, S::kBlending);
  ASSERT_OK(lifecycle_.SetAlpha(*slot_, 0.5).status());
  const Tensor host = Features();
  auto plan = std::make_shared<ForwardPlan>(*slot_->plan());
  plan->alpha_buffer = at::full({}, 0.25, at::kDouble);
  const auto run = [&] { return RunForwardPlan(*plan, host, {}, false); };
  const auto at = [&](double alpha) {
    return slot_->forward(host, SlotView{at::full({}, alpha)});
  };
  EXPECT_TRUE(run().eq(at(0.5)).all().item<bool>());
  const ScopedCapture capture;
  EXPECT_TRUE(run().eq(at(0.25)).all().item<bool>());
}

TEST_F(ReplayGuardTest, ABlendIsCapturedEvenWhileAlphaIsZero) {
  GrowTo(lifecycle_, *slot_, S::kBlending);
  slot_->eval();
  const Tensor host = Features();
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(slot_->forward(host).is_same(host));
  const ScopedCapture capture;
  const Tensor out = slot_->forward(host);
  EXPECT_FALSE(out.is_same(host));
  EXPECT_TRUE(out.eq(host).all().item<bool>());
}

TEST_F(ReplayGuardTest, ReplaysAcrossChangesOfAlphaAlone) {
  GrowTo(lifecycle_, *slot_, S::kBlending);
  const ReplayGuard guard = Capture();
  ASSERT_OK(lifecycle_.SetAlpha(*slot_, 0.4).status());
  EXPECT_OK(Check(guard));
  for (int tick = 0; tick < 5; ++tick) {
    ASSERT_OK(lifecycle_.Tick(*slot_).status());
    EXPECT_OK(Check(guard));
  }
}

TEST_F(ReplayGuardTest, RefusesAStaleStageOperatorSeedOrFreeze) {
  const auto stale = [this](const ReplayGuard& guard) {
    EXPECT_THAT(Check(guard), Refused(kState, "STALE_CAPTURE"));
  };
  const ReplayGuard empty = Capture();
  GrowTo(lifecycle_, *slot_, S::kTraining);
  stale(empty);

  const ReplayGuard training = Capture();
  // In TRAINING alpha 0 means the straight-through path.
  ASSERT_OK(lifecycle_.SetAlpha(*slot_, 0.5).status());
  stale(training);
  ASSERT_OK(lifecycle_.Prune(*slot_, "test").status());

  const auto other = MakeSlot();
  GrowTo(lifecycle_, *other, S::kHolding);
  AlphaTargetRequest request;
  request.algorithm = AlphaAlgorithm::kMultiply;
  const ReplayGuard add({other});
  ASSERT_OK(lifecycle_.SetAlphaTarget(*other, request).status());
  stale(add);

  const ReplayGuard multiply({other});
  request.target = 0.5;
  request.steps = 3;
  ASSERT_OK(lifecycle_.SetAlphaTarget(*other, request).status());
  stale(multiply);
  const ReplayGuard frozen({other});
  for (int tick = 0; tick < 2; ++tick) {
    ASSERT_OK(lifecycle_.Tick(*other).status());
    EXPECT_OK(Check(frozen));
  }
  ASSERT_OK(lifecycle_.Tick(*other).status());  // Thaws.
  stale(frozen);
}

TEST_F(ReplayGuardTest, KeepsANetworkThatTheGraphPointsInto) {
  GrowTo(lifecycle_, *slot_, S::kHolding);
  const std::weak_ptr<const SeedModule> seed = slot_->plan()->seed;
  {
    const ReplayGuard guard = Capture();
    ASSERT_OK(lifecycle_.Prune(*slot_, "test").status());
    EXPECT_FALSE(seed.expired());
  }
  EXPECT_TRUE(seed.expired());
}

TEST_F(ReplayGuardTest, RefusesAReplayUnderAScope) {
  GrowTo(lifecycle_, *slot_, S::kHolding);
  slot_->eval();
  const ReplayGuard guard = Capture();
  {
    const auto scope = ForceAlpha(*slot_, 0);
    ASSERT_OK(scope);
    const absl::Status refused = Check(guard);
    EXPECT_THAT(refused, Refused(kState, "FORCED_REPLAY"));
    EXPECT_NE(refused.message().find("SlotView{alpha_override}"),
              absl::string_view::npos);
  }
  EXPECT_OK(Check(guard));
}

}  // namespace
}  // namespace esper::slot
