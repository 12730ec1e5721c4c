// Lifecycle calls that freeze or thaw a seed beside forwards that are building
// a graph through it: every forward sees one set of trainable parameters.

#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "core/slot/blueprint.h"
#include "core/slot/seed_slot.h"
#include "core/slot/slot_lifecycle.h"
#include "gtest/gtest.h"
#include "tests/core/slot/test_seeds.h"
#include "tests/testing/status_matchers.h"

namespace esper::slot {
namespace {

using ::esper::testing::GrowTo;
using ::esper::testing::MakeSlot;
using S = SeedStage;

// y = x w + b; calls back between its two parameters, with whether each of
// them was trainable when it was read.
class ObservedSeed : public SeedModule {
 public:
  using Observer = std::function<void(const std::function<bool()>& second)>;

  explicit ObservedSeed(Observer* observer)
      : SeedModule("observed"), observer_(observer) {
    weight_ = register_parameter("weight", at::ones({4, 1, 1}));
    bias_ = register_parameter("bias", at::ones({4, 1, 1}));
  }
  at::Tensor forward(const at::Tensor& input) override {
    const at::Tensor scaled = input.mul(weight_);
    const bool first = weight_.requires_grad();
    if (*observer_ && at::GradMode::is_enabled()) {
      (*observer_)([&] { return bias_.requires_grad() == first; });
    }
    return scaled.add(bias_);
  }
  bool starts_with_normalization() const override { return false; }

 private:
  Observer* const observer_;
  at::Tensor weight_, bias_;
};

class BlendOutRaceTest : public ::testing::Test {
 protected:
  BlendOutRaceTest() {
    Blueprint blueprint;
    blueprint.name = "observed";
    blueprint.action_index = 1;
    blueprint.parameter_count = [](int64_t) { return int64_t{8}; };
    blueprint.create = [this](const SeedModuleOptions&)
        -> absl::StatusOr<std::shared_ptr<SeedModule>> {
      return std::make_shared<ObservedSeed>(&observer_);
    };
    registry_.emplace(
        BlueprintRegistry::Create({std::move(blueprint)}).value());
    SlotLifecycle::Options options;
    options.registry = &*registry_;
    lifecycle_.emplace(testing::MakeLifecycle(options));
    GerminateRequest request;
    request.blueprint_id = "observed";
    GrowTo(*lifecycle_, *slot_, S::kHolding, request);
    slot_->eval();
  }

  absl::Status RetargetOver(double target, int64_t steps) {
    AlphaTargetRequest request;
    request.target = target;
    request.steps = steps;
    return lifecycle_->SetAlphaTarget(*slot_, request).status();
  }

  ObservedSeed::Observer observer_;
  std::optional<BlueprintRegistry> registry_;
  std::optional<SlotLifecycle> lifecycle_;
  const std::shared_ptr<SeedSlot> slot_ = MakeSlot();
  const at::Tensor host_ = at::ones({2, 4, 3, 3});
};

TEST_F(BlendOutRaceTest, AFreezeWaitsForAForwardThatBuildsAGraph) {
  absl::Notification inside, go_on;
  std::atomic<bool> consistent{false};
  observer_ = [&](const std::function<bool()>& second) {
    inside.Notify();
    go_on.WaitForNotification();
    consistent = second();
  };
  at::Tensor out;
  std::thread forward([&] { out = slot_->forward(host_); });
  inside.WaitForNotification();
  std::atomic<bool> frozen{false};
  std::thread freeze([&] {
    EXPECT_OK(RetargetOver(0.5, 2));
    frozen = true;
  });
  absl::SleepFor(absl::Milliseconds(100));
  EXPECT_FALSE(frozen);
  // Forwards that build no graph are not held up, nor hold anything up.
  std::thread([&] {
    const at::NoGradGuard no_grad;
    EXPECT_TRUE(slot_->forward(host_).defined());
  }).join();
  go_on.Notify();
  forward.join();
  freeze.join();
  EXPECT_TRUE(consistent);
  EXPECT_TRUE(out.requires_grad());
  observer_ = nullptr;
  for (const at::Tensor& parameter : slot_->SeedParameters()) {
    EXPECT_FALSE(parameter.requires_grad());
  }
  EXPECT_FALSE(slot_->forward(host_).requires_grad());
}

TEST_F(BlendOutRaceTest, EveryForwardSeesOneStateWhileRampsComeAndGo) {
  std::atomic<int> mixed{0}, forwards{0};
  observer_ = [&](const std::function<bool()>& second) {
    std::this_thread::yield();
    if (!second()) ++mixed;
  };
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        slot_->forward(host_);
        ++forwards;
      }
    });
  }
  for (int round = 0; round < 100; ++round) {
    ASSERT_OK(RetargetOver(round % 2 == 0 ? 0.5 : 0.75, 1));  // Down, up.
    ASSERT_OK(lifecycle_->Tick(*slot_).status());
    while (forwards < round) std::this_thread::yield();
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(mixed, 0);
  EXPECT_GE(forwards, 99);
}

TEST_F(BlendOutRaceTest, CountsOfElementsAreOfOneState) {
  std::atomic<bool> stop{false};
  std::thread counter([&] {
    while (!stop) {
      const ElementCounts counts = slot_->CountElements();
      EXPECT_EQ(counts.owned, 8);
      EXPECT_TRUE(counts.trainable == 0 || counts.trainable == 8);
    }
  });
  for (int round = 0; round < 100; ++round) {
    ASSERT_OK(RetargetOver(round % 2 == 0 ? 0.5 : 0.75, 1));
    EXPECT_EQ(slot_->CountElements().trainable, round % 2 == 0 ? 0 : 8);
    ASSERT_OK(lifecycle_->Tick(*slot_).status());
    EXPECT_EQ(slot_->CountElements().trainable, 8);
  }
  stop = true;
  counter.join();
}

}  // namespace
}  // namespace esper::slot
