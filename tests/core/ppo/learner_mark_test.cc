#include <cstdint>

#include "gtest/gtest.h"
#include "tests/core/ppo/learner_fixture.h"
#include "tests/testing/status_matchers.h"

// Learner::Mark and ReturnTo.
namespace esper::ppo {
namespace {

void ExpectSameState(const LearnerState& actual, const LearnerState& expected) {
  EXPECT_EQ(actual.json, expected.json);
  ExpectSame(actual.tensors, expected.tensors);
}

TEST(LearnerMarkTest, AReturnLeavesNoTrace) {
  const auto learner = MakeLearner();
  const auto untouched = MakeLearner();
  const auto episodes = Episodes(*learner);
  // In the middle of an update: a step taken, another gradient accumulated.
  for (Learner* each : {learner.get(), untouched.get()}) {
    ASSERT_OK(each->ForwardBackward(episodes, FirstPass()));
    ASSERT_OK(each->OptimStep({}));
    ASSERT_OK(each->ForwardBackward(episodes, {}));
  }
  const LearnerState before = learner->Save();
  const auto published = learner->published();
  const auto mark = learner->Mark();

  OptimStepOptions step;
  step.learning_rate = 0.01;
  ASSERT_OK(learner->OptimStep(step));
  learner->Publish();
  ASSERT_OK(
      learner->ForwardBackward(Episodes(*learner, {9, 5}, 8), FirstPass()));
  ASSERT_OK(learner->OptimStep({}));
  EXPECT_NE(learner->Save().json, before.json);

  learner->ReturnTo(*mark);
  ExpectSameState(learner->Save(), before);
  EXPECT_EQ(learner->published(), published);
  EXPECT_EQ(learner->policy_version(), 1);
  EXPECT_TRUE(learner->has_gradient());

  // What follows is what would have followed, anomalies included.
  for (int i = 0; i < 2; ++i) {
    const auto step_of = [&](Learner& each) {
      auto report = each.OptimStep({});
      EXPECT_OK(report);
      each.Publish();
      EXPECT_OK(each.ForwardBackward(Episodes(each, {7, 7}, 9), FirstPass()));
      return *report;
    };
    const OptimStepReport a = step_of(*learner), b = step_of(*untouched);
    EXPECT_EQ(a.anomalies, b.anomalies);
    EXPECT_EQ(a.weights_change_l2, b.weights_change_l2);
  }
  ExpectSameState(learner->Save(), untouched->Save());
}

TEST(LearnerMarkTest, GraphsOutliveAReturnOnlyIfTheWeightsStayed) {
  const auto learner = MakeLearner();
  const auto episodes = Episodes(*learner);
  auto open = learner->Evaluate(episodes, /*keep_graph=*/true);
  ASSERT_OK(open);
  Cotangents cotangents;
  cotangents.values = (*open)->Numbers().values.clone();
  auto mark = learner->Mark();
  ASSERT_OK(learner->ForwardBackward(episodes, {}));
  learner->ReturnTo(*mark);
  EXPECT_FALSE(learner->has_gradient());
  EXPECT_OK(learner->AccumulateGradients(**open, cotangents));
  learner->ClearGradients();

  open = learner->Evaluate(episodes, /*keep_graph=*/true);
  ASSERT_OK(open);
  mark = learner->Mark();
  ASSERT_OK(learner->ForwardBackward(episodes, {}));
  ASSERT_OK(learner->OptimStep({}));
  learner->ReturnTo(*mark);
  EXPECT_THAT(learner->AccumulateGradients(**open, cotangents),
              esper::testing::Refused(absl::StatusCode::kFailedPrecondition,
                                      "EVALUATION_EXPIRED"));
}

}  // namespace
}  // namespace esper::ppo
