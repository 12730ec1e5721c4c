// The guard of the straight-through path: a seed that trains while frozen is
// noticed in every build, once per seed, and says so in the log.

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/sin.h>
#include <c10/core/InferenceMode.h>

#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
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
using ::esper::testing::ScopedCapture;

Tensor Features() {
  return at::sin(at::arange(72).mul(0.7)).reshape({2, 4, 3, 3});
}

void SetTrainable(SeedSlot& slot, bool trainable) {
  for (Tensor parameter : slot.SeedParameters()) {
    parameter.set_requires_grad(trainable);
  }
}

void ExpectHost(const SeedSlot& slot) {
  const Tensor host = Features();
  EXPECT_TRUE(slot.forward(host).eq(host).all().item<bool>());
}

class SteGuardTest : public ::testing::Test {
 protected:
  size_t warnings() const { return log_.Lines("warning").size(); }
  int64_t blocked() const { return slot_->Report()->ste_blocked_steps; }

  const LogCapture log_;
  const SlotLifecycle lifecycle_ = MakeLifecycle();
  const std::shared_ptr<SeedSlot> slot_ = MakeSlot();
};

TEST_F(SteGuardTest, WarnsOnceInAHundredStepsAndCountsThemAll) {
  GrowTo(lifecycle_, *slot_, SeedStage::kTraining);
  SetTrainable(*slot_, false);
  for (int step = 0; step < 100; ++step) ExpectHost(*slot_);
  EXPECT_EQ(blocked(), 100);
  const std::vector<std::string> lines = log_.Lines("warning");
  ASSERT_EQ(lines.size(), 1);
  for (const char* part : {"r0c0-norm", "(norm)", "slot r0c0", "3 of 3"}) {
    EXPECT_NE(lines[0].find(part), std::string::npos) << lines[0];
  }
}

TEST_F(SteGuardTest, WarnsAgainForTheNextSeedOfTheSlot) {
  for (size_t seed = 1; seed <= 2; ++seed) {
    GrowTo(lifecycle_, *slot_, SeedStage::kTraining);
    SetTrainable(*slot_, false);
    ExpectHost(*slot_);
    EXPECT_EQ(warnings(), seed);
    EXPECT_EQ(blocked(), 1);
    ASSERT_OK(lifecycle_.Prune(*slot_, "test").status());
    for (int tick = 0; tick < 7; ++tick) {
      ASSERT_OK(lifecycle_.Tick(*slot_).status());
    }
  }
}

TEST_F(SteGuardTest, EightThreadsWarnOnce) {
  GrowTo(lifecycle_, *slot_, SeedStage::kTraining);
  SetTrainable(*slot_, false);
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int step = 0; step < 20; ++step) ExpectHost(*slot_);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(warnings(), 1);
  EXPECT_EQ(blocked(), 160);
}

TEST_F(SteGuardTest, SaysNothingTwiceAfterThawingAndFreezingAgain) {
  GrowTo(lifecycle_, *slot_, SeedStage::kTraining);
  for (int round = 0; round < 3; ++round) {
    SetTrainable(*slot_, false);
    ExpectHost(*slot_);
    SetTrainable(*slot_, true);
    ExpectHost(*slot_);
  }
  EXPECT_EQ(warnings(), 1);
  EXPECT_EQ(blocked(), 3);
}

TEST_F(SteGuardTest, IsSilentWhereNoGradientIsMissing) {
  GrowTo(lifecycle_, *slot_, SeedStage::kTraining);
  ExpectHost(*slot_);  // Healthy.
  SetTrainable(*slot_, false);
  {
    const at::NoGradGuard no_grad;
    ExpectHost(*slot_);
  }
  {
    const c10::InferenceMode inference;
    ExpectHost(*slot_);
  }
  slot_->eval();
  ExpectHost(*slot_);
  EXPECT_EQ(blocked(), 0);

  const auto noop = MakeSlot();
  GerminateRequest request;
  request.blueprint_id = "noop";
  GrowTo(lifecycle_, *noop, SeedStage::kTraining, request);
  ExpectHost(*noop);
  EXPECT_EQ(noop->Report()->ste_blocked_steps, 0);

  const auto blending = MakeSlot();
  GrowTo(lifecycle_, *blending, SeedStage::kBlending);
  SetTrainable(*blending, false);
  blending->forward(Features());
  EXPECT_EQ(blending->Report()->ste_blocked_steps, 0);
  EXPECT_EQ(warnings(), 0);
}

TEST_F(SteGuardTest, DoesNotRunUnderCapture) {
  GrowTo(lifecycle_, *slot_, SeedStage::kTraining);
  SetTrainable(*slot_, false);
  {
    const ScopedCapture capture;
    ExpectHost(*slot_);
  }
  EXPECT_EQ(blocked(), 0);
  EXPECT_EQ(warnings(), 0);
  EXPECT_FALSE(slot_->plan()->probe->TakeOutputFinite().defined());
}

TEST_F(SteGuardTest, NotesPartialFreezingOnce) {
  GrowTo(lifecycle_, *slot_, SeedStage::kTraining);
  slot_->SeedParameters()[1].set_requires_grad(false);
  for (int step = 0; step < 5; ++step) ExpectHost(*slot_);
  EXPECT_EQ(blocked(), 0);
  EXPECT_EQ(warnings(), 0);
  const std::vector<std::string> notes = log_.Lines("info");
  ASSERT_EQ(notes.size(), 1);
  EXPECT_NE(notes[0].find("1 of 3"), std::string::npos) << notes[0];
}

TEST_F(SteGuardTest, CanBeSwitchedOff) {
  SeedSlot::Options options;
  options.channels = 4;
  options.ste_guard = SteGuard::kOff;
  const auto slot = MakeSlot(options);
  GrowTo(lifecycle_, *slot, SeedStage::kTraining);
  SetTrainable(*slot, false);
  ExpectHost(*slot);
  EXPECT_EQ(slot->Report()->ste_blocked_steps, 0);
  EXPECT_EQ(warnings(), 0);
}

TEST_F(SteGuardTest, ThrowsOnFirstUseIfAsked) {
  SeedSlot::Options options;
  options.channels = 4;
  options.ste_guard = SteGuard::kThrow;
  const auto slot = MakeSlot(options);
  GrowTo(lifecycle_, *slot, SeedStage::kTraining);
  ExpectHost(*slot);
  SetTrainable(*slot, false);
  try {
    slot->forward(Features());
    FAIL();
  } catch (const GradientContractError& error) {
    EXPECT_EQ(error.reason(), "FROZEN_SEED");
    EXPECT_NE(std::string(error.what()).find("r0c0-norm"), std::string::npos);
  }
}

}  // namespace
}  // namespace esper::slot
