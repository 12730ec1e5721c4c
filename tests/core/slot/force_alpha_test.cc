#include "core/slot/force_alpha.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sin.h>

#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/slot/slot_checkpoint.h"
#include "core/slot/slot_checkpoint_restore.h"
#include "core/slot/slot_lifecycle.h"
#include "gtest/gtest.h"
#include "tests/core/slot/test_seeds.h"
#include "tests/testing/log_capture.h"
#include "tests/testing/status_matchers.h"

namespace esper::slot {
namespace {

using at::Tensor;
using ::esper::testing::GrowTo;
using ::esper::testing::IsOk;
using ::esper::testing::LogCapture;
using ::esper::testing::MakeLifecycle;
using ::esper::testing::MakeSlot;
using ::esper::testing::Refused;
using ::esper::testing::ScopedCapture;
using ::esper::testing::TestBlueprints;

static_assert(std::is_move_constructible_v<ScopedForceAlpha>);
static_assert(!std::is_copy_constructible_v<ScopedForceAlpha>);
static_assert(!std::is_copy_assignable_v<ScopedForceAlpha>);
static_assert(!std::is_move_assignable_v<ScopedForceAlpha>);
static_assert(!std::is_default_constructible_v<ScopedForceAlpha>);

constexpr auto kState = absl::StatusCode::kFailedPrecondition;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr char kFunctionalForm[] = "SlotView{alpha_override}";

constexpr AlphaAlgorithm kAlgorithms[] = {
    AlphaAlgorithm::kAdd, AlphaAlgorithm::kMultiply, AlphaAlgorithm::kGate};

Tensor Features() {
  return at::sin(at::arange(72).mul(0.7)).reshape({2, 4, 3, 3});
}

bool Equal(const Tensor& a, const Tensor& b) {
  return a.sizes() == b.sizes() && a.eq(b).all().item<bool>();
}

GerminateRequest Request(const std::string& blueprint,
                         AlphaAlgorithm algorithm = AlphaAlgorithm::kAdd) {
  GerminateRequest request;
  request.blueprint_id = blueprint;
  request.algorithm = algorithm;
  if (algorithm == AlphaAlgorithm::kGate) request.blend_id = "gated";
  return request;
}

SlotView At(double alpha) { return SlotView{at::full({}, alpha)}; }

// In evaluation mode and BLENDING at alpha 0.5.
class ForceAlphaTest : public ::testing::Test {
 protected:
  ForceAlphaTest() { Blend(*slot_, Request("norm")); }

  void Blend(SeedSlot& slot, const GerminateRequest& request) {
    GrowTo(lifecycle_, slot, SeedStage::kBlending, request);
    EXPECT_OK(lifecycle_.SetAlpha(slot, 0.5).status());
    slot.eval();
  }

  void PruneToEmpty() {
    ASSERT_OK(lifecycle_.Prune(*slot_, "test").status());
    for (int tick = 0; tick < 7; ++tick) {
      ASSERT_OK(lifecycle_.Tick(*slot_).status());
    }
    ASSERT_TRUE(slot_->empty());
  }

  // That a forward under the open scope is refused, and with which words.
  void ExpectForwardRefused(const std::string& reason,
                            const SlotView& view = {}) {
    try {
      slot_->forward(host_, view);
      FAIL() << "not refused: " << reason;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), kState);
      EXPECT_EQ(error.reason(), reason);
      EXPECT_NE(std::string(error.what()).find(kFunctionalForm),
                std::string::npos)
          << error.what();
    }
  }

  // That no scope can be opened, with which words, and that trying has left
  // nothing behind.
  void ExpectOpeningRefused(absl::StatusCode code, const std::string& reason,
                            double alpha = 0) {
    const auto refused = ForceAlpha(*slot_, alpha);
    EXPECT_THAT(refused, Refused(code, reason));
    EXPECT_NE(refused.status().message().find(kFunctionalForm),
              absl::string_view::npos)
        << refused.status();
  }

  const Tensor host_ = Features();
  const SlotLifecycle lifecycle_ = MakeLifecycle();
  const std::shared_ptr<SeedSlot> slot_ = MakeSlot();
};

TEST_F(ForceAlphaTest, OffIsTheHostForEveryOperatorEvenIfTheSeedMakesNan) {
  for (const AlphaAlgorithm algorithm : kAlgorithms) {
    for (const char* blueprint : {"norm", "nan"}) {
      const auto slot = MakeSlot();
      Blend(*slot, Request(blueprint, algorithm));
      EXPECT_FALSE(Equal(slot->forward(host_), host_));
      const auto scope = ForceAlpha(*slot, 0);
      ASSERT_OK(scope);
      EXPECT_TRUE(Equal(slot->forward(host_), host_));
      const at::NoGradGuard no_grad;
      EXPECT_TRUE(slot->forward(host_).is_same(host_));
    }
  }
}

TEST_F(ForceAlphaTest, EqualsTheFunctionalForm) {
  for (const AlphaAlgorithm algorithm : kAlgorithms) {
    for (const SeedStage stage :
         {SeedStage::kTraining, SeedStage::kBlending, SeedStage::kHolding}) {
      const auto slot = MakeSlot();
      GrowTo(lifecycle_, *slot, stage, Request("norm", algorithm));
      slot->eval();
      for (const double alpha : {0.0, 0.25, 0.7, 1.0}) {
        const Tensor functional = slot->forward(host_, At(alpha));
        const auto scope = ForceAlpha(*slot, alpha);
        ASSERT_OK(scope);
        EXPECT_TRUE(Equal(slot->forward(host_), functional));
        // GATE keeps its gate network.
        EXPECT_EQ(slot->Report()->has_gate, algorithm == AlphaAlgorithm::kGate);
      }
    }
  }
}

TEST_F(ForceAlphaTest, TrueAlphaIsBackAfterTheScopeAndAfterAThrow) {
  const Tensor before = slot_->forward(host_);
  {
    const auto scope = ForceAlpha(*slot_, 1);
    ASSERT_OK(scope);
    EXPECT_FALSE(Equal(slot_->forward(host_), before));
  }
  EXPECT_TRUE(Equal(slot_->forward(host_), before));
  try {
    const auto scope = ForceAlpha(*slot_, 1);
    ASSERT_OK(scope);
    throw std::runtime_error("evaluation failed");
  } catch (const std::runtime_error&) {
  }
  EXPECT_TRUE(Equal(slot_->forward(host_), before));
  EXPECT_OK(ForceAlpha(*slot_, 1));
}

TEST_F(ForceAlphaTest, MovesWithItsOwner) {
  std::optional<ScopedForceAlpha> kept;
  kept.emplace(ForceAlpha(*slot_, 0).value());
  EXPECT_TRUE(Equal(slot_->forward(host_), host_));
  kept.reset();
  EXPECT_FALSE(Equal(slot_->forward(host_), host_));
}

TEST_F(ForceAlphaTest, ReportsPlansAndOtherThreadsSeeTheTrueAlpha) {
  const Tensor before = slot_->forward(host_);
  const auto plan = slot_->plan();
  const auto scope = ForceAlpha(*slot_, 0);
  ASSERT_OK(scope);
  EXPECT_EQ(slot_->alpha(), 0.5);
  EXPECT_EQ(slot_->Report()->alpha(), 0.5);
  EXPECT_EQ(slot_->Report()->metrics.current_alpha, 0.5);
  EXPECT_EQ(slot_->plan(), plan);
  std::thread([&] {
    EXPECT_TRUE(Equal(slot_->forward(host_), before));
  }).join();
}

TEST_F(ForceAlphaTest, GatesJudgeTheTrueAlpha) {
  const auto scope = ForceAlpha(*slot_, 1);
  ASSERT_OK(scope);
  const LifecycleResult result = lifecycle_.Advance(*slot_);
  EXPECT_EQ(result.refusal(), Refusal::kGateFailed);
  EXPECT_EQ(slot_->stage(), SeedStage::kBlending);
}

TEST_F(ForceAlphaTest, AResolvedViewHoldsOnHelperThreads) {
  const auto scope = ForceAlpha(*slot_, 0);
  ASSERT_OK(scope);
  const SlotView view = slot_->Resolve({});
  std::thread([&] {
    EXPECT_TRUE(Equal(slot_->forward(host_, view), host_));
  }).join();
}

// The four faults that were measured in the original.

TEST_F(ForceAlphaTest, SetAlphaInsideAScopePersists) {
  {
    const auto scope = ForceAlpha(*slot_, 0);
    ASSERT_OK(scope);
    ASSERT_OK(lifecycle_.SetAlpha(*slot_, 0.25).status());
    EXPECT_TRUE(Equal(slot_->forward(host_), host_));
  }
  EXPECT_EQ(slot_->alpha(), 0.25);
  EXPECT_TRUE(Equal(slot_->forward(host_), slot_->forward(host_, At(0.25))));
}

TEST_F(ForceAlphaTest, InstantRetargetBeforeOrInsideAScopePersists) {
  for (const bool inside : {false, true}) {
    const auto slot = MakeSlot();
    GrowTo(lifecycle_, *slot, SeedStage::kHolding);
    slot->eval();
    AlphaTargetRequest half;
    half.target = 0.5;
    const auto retarget = [&] {
      ASSERT_OK(lifecycle_.SetAlphaTarget(*slot, half).status());
    };
    if (!inside) retarget();
    {
      const auto scope = ForceAlpha(*slot, 1);
      ASSERT_OK(scope);
      if (inside) retarget();
    }
    EXPECT_EQ(slot->alpha(), 0.5);
    ASSERT_OK(lifecycle_.Tick(*slot).status());
    EXPECT_EQ(slot->alpha(), 0.5);
    EXPECT_TRUE(Equal(slot->forward(host_), slot->forward(host_, At(0.5))));
  }
}

TEST_F(ForceAlphaTest, PruneToEmptyInsideAScopeEndsInAnEmptySlot) {
  {
    const auto scope = ForceAlpha(*slot_, 1);
    ASSERT_OK(scope);
    PruneToEmpty();
    EXPECT_TRUE(slot_->forward(host_).is_same(host_));
  }
  EXPECT_TRUE(slot_->empty());
  EXPECT_TRUE(slot_->forward(host_).is_same(host_));
  GrowTo(lifecycle_, *slot_, SeedStage::kGerminated);
  EXPECT_EQ(slot_->alpha(), 0);
}

TEST_F(ForceAlphaTest, ASeedPlantedInsideAScopeIsNotForced) {
  {
    const auto scope = ForceAlpha(*slot_, 1);
    ASSERT_OK(scope);
    PruneToEmpty();
    GrowTo(lifecycle_, *slot_, SeedStage::kBlending);
    ASSERT_OK(lifecycle_.SetAlpha(*slot_, 0.25).status());
    ExpectForwardRefused("STALE_SEED");
  }
  EXPECT_EQ(slot_->alpha(), 0.25);
  EXPECT_TRUE(Equal(slot_->forward(host_), slot_->forward(host_, At(0.25))));
}

// A checkpoint brings its seed's generation number back, not the seed.
TEST_F(ForceAlphaTest, ASeedLoadedInsideAScopeIsNotForced) {
  const SlotCheckpoint saved = SaveSlot(*slot_);
  const uint64_t generation = slot_->plan()->generation;
  {
    const auto scope = ForceAlpha(*slot_, 1);
    ASSERT_OK(scope);
    ASSERT_OK(LoadSlot(*slot_, saved, TestBlueprints()));
    ASSERT_EQ(slot_->plan()->generation, generation);
    ExpectForwardRefused("STALE_SEED");
  }
  EXPECT_TRUE(Equal(slot_->forward(host_), slot_->forward(host_, At(0.5))));
}

TEST_F(ForceAlphaTest, ScopesOfTwoSlotsMayEndInAnyOrder) {
  const auto other = MakeSlot();
  Blend(*other, Request("norm"));
  auto first = std::make_optional(ForceAlpha(*slot_, 0).value());
  auto second = std::make_optional(ForceAlpha(*other, 0).value());
  first.reset();
  EXPECT_FALSE(Equal(slot_->forward(host_), host_));
  EXPECT_TRUE(Equal(other->forward(host_), host_));
  second.reset();
  EXPECT_FALSE(Equal(other->forward(host_), host_));
  EXPECT_EQ(slot_->alpha(), 0.5);
  EXPECT_EQ(other->alpha(), 0.5);
}

// Misuse, each with its code and its words.

TEST_F(ForceAlphaTest, RefusesAlphaOutsideTheUnitInterval) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  for (const double bad :
       {7.5, -0.1, std::numeric_limits<double>::quiet_NaN(), kInf, -kInf}) {
    ExpectOpeningRefused(kInvalid, "BAD_ALPHA", bad);
    EXPECT_FALSE(Equal(slot_->forward(host_), host_));
  }
  EXPECT_OK(ForceAlpha(*slot_, 0));
}

TEST_F(ForceAlphaTest, RefusesANestedScopeAndKeepsTheOuterOne) {
  const auto outer = ForceAlpha(*slot_, 0);
  ASSERT_OK(outer);
  ExpectOpeningRefused(kState, "FORCE_ALPHA_OPEN", 1);
  EXPECT_TRUE(Equal(slot_->forward(host_), host_));
}

TEST_F(ForceAlphaTest, RefusesAScopeOnASecondThread) {
  {
    const auto scope = ForceAlpha(*slot_, 0);
    ASSERT_OK(scope);
    std::thread([&] {
      ExpectOpeningRefused(kState, "FORCE_ALPHA_OPEN", 1);
    }).join();
  }
  std::thread([&] { EXPECT_OK(ForceAlpha(*slot_, 1)); }).join();
}

TEST_F(ForceAlphaTest, RefusesTrainingModeWithGradients) {
  slot_->train();
  ExpectOpeningRefused(kState, "TRAINING_MODE");
  {
    const at::NoGradGuard no_grad;
    EXPECT_OK(ForceAlpha(*slot_, 0));
  }
  slot_->eval();
  const auto scope = ForceAlpha(*slot_, 0);
  ASSERT_OK(scope);
  slot_->train();
  ExpectForwardRefused("TRAINING_MODE");
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(Equal(slot_->forward(host_), host_));
}

TEST_F(ForceAlphaTest, RefusesGraphCapture) {
  {
    const ScopedCapture capture;
    ExpectOpeningRefused(kState, "RECORDING");
  }
  const auto scope = ForceAlpha(*slot_, 0);
  ASSERT_OK(scope);
  {
    const ScopedCapture capture;
    ExpectForwardRefused("RECORDING");
  }
  EXPECT_TRUE(Equal(slot_->forward(host_), host_));
}

TEST_F(ForceAlphaTest, RefusesAnOverrideBesideAScope) {
  const auto scope = ForceAlpha(*slot_, 0);
  ASSERT_OK(scope);
  ExpectForwardRefused("OVERRIDE_CONFLICT", At(1));
  // Of another thread it is none of this scope's business.
  std::thread([&] {
    EXPECT_FALSE(Equal(slot_->forward(host_, At(1)), host_));
  }).join();
}

TEST_F(ForceAlphaTest, AnEmptySlotHasNothingToForce) {
  PruneToEmpty();
  const auto scope = ForceAlpha(*slot_, 1);
  ASSERT_OK(scope);
  EXPECT_TRUE(slot_->forward(host_).is_same(host_));
  GrowTo(lifecycle_, *slot_, SeedStage::kTraining);
  ExpectForwardRefused("STALE_SEED");
}

TEST_F(ForceAlphaTest, AScopeThatEndsOnAnotherThreadEndsLoudly) {
  const LogCapture log;
  auto scope = std::make_optional(ForceAlpha(*slot_, 0).value());
  std::thread([&] { scope.reset(); }).join();
  ASSERT_EQ(log.Lines("error").size(), 1);
  EXPECT_NE(log.Lines("error")[0].find("slot r0c0"), std::string::npos);
  EXPECT_FALSE(Equal(slot_->forward(host_), host_));
  EXPECT_OK(ForceAlpha(*slot_, 0));
}

TEST_F(ForceAlphaTest, MayOutliveItsSlot) {
  auto slot = MakeSlot();
  slot->eval();
  const auto scope = ForceAlpha(*slot, 0);
  ASSERT_OK(scope);
  slot.reset();
  // A later slot is another slot, wherever it lies in memory.
  for (int i = 0; i < 8; ++i) {
    const auto later = MakeSlot();
    Blend(*later, Request("norm"));
    EXPECT_FALSE(Equal(later->forward(host_), host_));
  }
}

TEST_F(ForceAlphaTest, EightThreadsOverrideDifferentlyByTheFunctionalForm) {
  for (const AlphaAlgorithm algorithm : kAlgorithms) {
    const auto slot = MakeSlot();
    Blend(*slot, Request("norm", algorithm));
    std::vector<Tensor> serial;
    for (int t = 0; t < 8; ++t) {
      serial.push_back(slot->forward(host_, At(t / 7.0)));
    }
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 25; ++i) {
          EXPECT_TRUE(Equal(slot->forward(host_, At(t / 7.0)), serial[t]));
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(slot->alpha(), 0.5);
  }
}

TEST_F(ForceAlphaTest, ThreadsRaceForAScopeAndOneAtATimeHoldsIt) {
  std::atomic<int> holders{0};
  std::atomic<int> opened{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        const auto scope = ForceAlpha(*slot_, 0);
        if (!scope.ok()) continue;
        EXPECT_EQ(++holders, 1);
        ++opened;
        EXPECT_TRUE(Equal(slot_->forward(host_), host_));
        --holders;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(opened, 0);
}

}  // namespace
}  // namespace esper::slot
