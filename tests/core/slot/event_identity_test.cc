// Events say which decision of which search caused them.

#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "core/slot/events.h"
#include "core/slot/slot_lifecycle.h"
#include "gtest/gtest.h"
#include "tests/core/slot/test_seeds.h"
#include "tests/testing/status_matchers.h"

namespace esper::slot {
namespace {

class Recorder : public EventSink {
 public:
  void OnEvent(const SlotEvent& event) noexcept override {
    events.push_back(event);
  }
  std::vector<SlotEvent> events;
};

class EventIdentityTest : public ::testing::Test {
 protected:
  EventIdentityTest() {
    SlotLifecycle::Options options;
    options.events = &recorder_;
    lifecycle_.emplace(testing::MakeLifecycle(options));
  }
  Recorder recorder_;
  std::optional<SlotLifecycle> lifecycle_;
  const std::shared_ptr<SeedSlot> slot_ = testing::MakeSlot();
};

TEST_F(EventIdentityTest, MarksEventsOfTheCallButGateVerdicts) {
  MutationIdentity identity;
  identity.proposal_id = "p1";
  identity.verdict_id = "v2";
  identity.mutation_id = "m3";
  identity.rng_stream = "growth";
  identity.rng_seed = 4;
  const SlotLifecycle marked = lifecycle_->WithIdentity(identity);
  GerminateRequest request;
  request.blueprint_id = "norm";
  ASSERT_OK(marked.Germinate(*slot_, request).status());
  ASSERT_OK(marked.Advance(*slot_).status());
  ASSERT_OK(marked.Prune(*slot_, "policy_prune").status());
  ASSERT_EQ(recorder_.events.size(), 5);
  for (const SlotEvent& event : recorder_.events) {
    if (std::holds_alternative<SeedGateEvaluated>(event.payload)) {
      EXPECT_FALSE(event.identity.has_value());
      continue;
    }
    ASSERT_TRUE(event.identity.has_value());
    EXPECT_EQ(event.identity->proposal_id, "p1");
    EXPECT_EQ(event.identity->verdict_id, "v2");
    EXPECT_EQ(event.identity->mutation_id, "m3");
    EXPECT_EQ(event.identity->rng_stream, "growth");
    EXPECT_EQ(event.identity->rng_seed, 4);
  }
}

TEST_F(EventIdentityTest, IsAbsentWithoutAContext) {
  lifecycle_->WithIdentity({});  // Leaves the service itself alone.
  testing::GrowTo(*lifecycle_, *slot_, SeedStage::kTraining);
  ASSERT_FALSE(recorder_.events.empty());
  for (const SlotEvent& event : recorder_.events) {
    EXPECT_FALSE(event.identity.has_value());
  }
}

}  // namespace
}  // namespace esper::slot
