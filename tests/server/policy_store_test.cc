#include "server/policy_store.h"

#include <memory>

#include "core/policy/inference_policy.h"
#include "core/ppo/learner.h"
#include "gtest/gtest.h"
#include "tests/core/ppo/rollout.h"
#include "tests/testing/status_matchers.h"

namespace esper::server {
namespace {

ppo::PolicySnapshot FirstVersion() {
  auto learner = ppo::Learner::Create(ppo::SmallSpec(), ppo::LearnerConfig(),
                                      /*init_seed=*/3);
  EXPECT_OK(learner.status());
  return *(*learner)->published();
}

TEST(PolicyStoreTest, AVersionActsWithTheFloorsItWasPublishedWith) {
  const policy::PolicySpec spec = ppo::SmallSpec();
  PolicyStore store(spec, {});
  ppo::PolicySnapshot snapshot = FirstVersion();
  ASSERT_OK(store.Publish(snapshot));
  EXPECT_EQ(store.Current()->policy->floors(), spec.Floors());

  snapshot.version = 2;
  snapshot.floors = spec.Floors().Scaled(0.25);
  ASSERT_NE(snapshot.floors, spec.Floors());
  ASSERT_OK(store.Publish(snapshot));
  EXPECT_EQ(store.Current()->policy->floors(), snapshot.floors);
  EXPECT_EQ(store.Find(1)->policy->floors(), spec.Floors());
}

TEST(PolicyStoreTest, KeepsTheNewestVersionsAndForgetsThoseAboveARestoredOne) {
  PolicyStore store(ppo::SmallSpec(), {/*keep=*/2});
  ppo::PolicySnapshot snapshot = FirstVersion();
  EXPECT_EQ(store.Current(), nullptr);
  for (int64_t version = 1; version <= 3; ++version) {
    snapshot.version = version;
    ASSERT_OK(store.Publish(snapshot));
  }
  EXPECT_EQ(store.Find(1), nullptr);
  EXPECT_EQ(store.version(), 3);
  snapshot.version = 2;
  ASSERT_OK(store.Publish(snapshot));
  EXPECT_EQ(store.version(), 2);
  EXPECT_EQ(store.Find(3), nullptr);
}

TEST(PolicyStoreTest, ThePrecisionBelongsToTheVersion) {
  PolicyStore::Options options;
  options.precision = policy::InferencePrecision::kBf16;
  PolicyStore rounded(ppo::SmallSpec(), options);
  PolicyStore exact(ppo::SmallSpec(), {});
  ASSERT_OK(rounded.Publish(FirstVersion()));
  ASSERT_OK(exact.Publish(FirstVersion()));
  EXPECT_EQ(rounded.Current()->precision, "bf16");
  EXPECT_EQ(rounded.Current()->policy->precision(),
            policy::InferencePrecision::kBf16);
  EXPECT_EQ(exact.Current()->precision, "fp32");
  v1::ResponseHeader header;
  rounded.FillHeader(&header);
  EXPECT_EQ(header.precision(), v1::INFERENCE_PRECISION_BF16);
  exact.FillHeader(&header);
  EXPECT_EQ(header.precision(), v1::INFERENCE_PRECISION_FP32);
}

}  // namespace
}  // namespace esper::server
