#include <algorithm>
#include <string>

#include "ATen/TensorOperators.h"
#include "ATen/ops/full.h"
#include "ATen/ops/ones.h"
#include "core/ppo/learner.h"
#include "gtest/gtest.h"
#include "tests/core/ppo/learner_fixture.h"
#include "tests/testing/status_matchers.h"

// What a pass says about the health of training.
namespace esper::ppo {
namespace {

bool Has(const std::vector<std::string>& names, const std::string& name) {
  return std::count(names.begin(), names.end(), name) > 0;
}

TEST(LearnerMetricsTest, AFirstPassReportsEveryDiagnostic) {
  const auto learner = MakeLearner();
  const auto report =
      learner->ForwardBackward(Episodes(*learner, {20, 30}), FirstPass());
  ASSERT_OK(report);
  const auto& metrics = report->metrics;
  for (const char* name : {"explained_variance",
                           "value_nrmse",
                           "value_variance_low",
                           "value_correlation",
                           "td_mean",
                           "td_std",
                           "bellman_error",
                           "return_p10",
                           "return_p50",
                           "return_p90",
                           "return_variance",
                           "return_skewness",
                           "contribution_explained_variance",
                           "contribution_nrmse",
                           "q_variance",
                           "q_spread",
                           "mean_entropy",
                           "ratio_std",
                           "lstm_h_rms",
                           "lstm_c_env_rms_max",
                           "advantage_floored",
                           "floor_scale"}) {
    EXPECT_TRUE(metrics.count(name)) << name;
  }
  for (const policy::HeadSpec& head : learner->spec().heads) {
    EXPECT_GT(metrics.at("entropy." + head.name), 0) << head.name;
    EXPECT_TRUE(metrics.count("entropy_used." + head.name));
    EXPECT_EQ(metrics.at("gradient_state." + head.name), 0) << head.name;
    EXPECT_GT(metrics.at("gradient_norm." + head.name), 0) << head.name;
    EXPECT_LE(metrics.at("share_choice." + head.name), 1);
  }
  EXPECT_GT(metrics.at("lstm_h_rms"), 0);
  EXPECT_GE(metrics.at("lstm_h_env_rms_max"), metrics.at("lstm_h_rms"));
  EXPECT_GE(metrics.at("q_spread"), 0);
  EXPECT_TRUE(report->anomalies.empty())
      << report->anomalies.front() << " of a fresh network";
}

TEST(LearnerMetricsTest, SharesCountStepsWithARealChoice) {
  // With everything allowed every used head has a choice; with single entries
  // none has.
  const auto learner = MakeLearner();
  RolloutOptions options;
  options.lengths = {15};
  options.random_masks = false;
  auto episodes = Rollout(learner->spec(), *learner->published(), options);
  const auto open = learner->ForwardBackward(episodes, FirstPass());
  ASSERT_OK(open);
  EXPECT_EQ(open->metrics.at("share_choice.op"), 1.0);
  EXPECT_EQ(open->metrics.at("share_used.op"), 1.0);
}

TEST(LearnerMetricsTest, ALaterPassLeavesOnceAnUpdateDiagnosticsOut) {
  const auto learner = MakeLearner();
  const auto report = learner->ForwardBackward(Episodes(*learner), {});
  ASSERT_OK(report);
  EXPECT_EQ(report->metrics.count("lstm_h_rms"), 0u);
  EXPECT_EQ(report->metrics.count("q_spread"), 0u);
}

TEST(LearnerMetricsTest, PartsOfABatchNameNoAnomalies) {
  const auto learner = MakeLearner();
  auto episodes = Episodes(*learner);
  for (Trajectory& row : episodes) row.rewards = at::full({row.length()}, 50.f);
  PpoOptions options = FirstPass();
  options.totals_only = true;
  const auto totals = learner->ForwardBackward(episodes, options);
  ASSERT_OK(totals);
  EXPECT_TRUE(Has(totals->anomalies, "value_collapse"));
  PpoOptions part;
  part.totals = totals->totals;
  const auto report = learner->ForwardBackward({&episodes[0], 1}, part);
  ASSERT_OK(report);
  EXPECT_TRUE(report->anomalies.empty());
}

TEST(LearnerMetricsTest, ForcedStepsAloneAreNoValueCollapse) {
  const auto learner = MakeLearner();
  auto episodes = Episodes(*learner);
  for (Trajectory& row : episodes) {
    row.rewards = at::full({row.length()}, 50.f);
    row.forced = at::ones({row.length()}, at::kBool);
  }
  const auto report = learner->ForwardBackward(episodes, FirstPass());
  ASSERT_OK(report);
  EXPECT_GT(report->metrics.at("bellman_error"), 5.0);
  EXPECT_FALSE(Has(report->anomalies, "value_collapse"));
}

TEST(LearnerMetricsTest, ACollapsedHeadIsNamedAfterThreeUpdates) {
  const auto learner = MakeLearner();
  LearnerState state = learner->Save();
  // One slot is all but certain.
  for (auto& [name, tensor] : state.tensors) {
    if (name == "weights.slot_head.2.bias") tensor[0].fill_(40.0f);
  }
  ASSERT_OK(learner->Restore(state));
  std::vector<std::string> names;
  for (int update = 0; update < 3; ++update) {
    EXPECT_FALSE(Has(names, "entropy_collapse_slot"));
    const auto report = learner->ForwardBackward(
        Episodes(*learner, {30, 30}, update + 1), FirstPass());
    ASSERT_OK(report);
    EXPECT_LT(report->metrics.at("entropy.slot"), 0.1);
    names = report->anomalies;
    learner->ClearGradients();
    learner->Publish();
  }
  EXPECT_TRUE(Has(names, "entropy_collapse_slot"));
}

TEST(LearnerMetricsTest, AGradientThatJumpsIsADrift) {
  const auto learner = MakeLearner();
  const auto step = [&](float reward) {
    auto episodes = Episodes(*learner);
    for (Trajectory& row : episodes) row.rewards.fill_(reward);
    PpoOptions options;
    options.value.target = 5.0;
    EXPECT_TRUE(learner->ForwardBackward(episodes, options).ok());
    OptimStepOptions tiny;
    tiny.learning_rate = 1e-9;
    auto report = learner->OptimStep(tiny);
    EXPECT_TRUE(report.ok()) << report.status();
    return report->anomalies;
  };
  EXPECT_TRUE(step(1.0f).empty());
  EXPECT_TRUE(step(1.0f).empty());
  const auto names = step(1000.0f);
  EXPECT_TRUE(Has(names, "gradient_norm_drift"));
  EXPECT_TRUE(Has(names, "gradient_health_drift"));
}

TEST(LearnerMetricsTest, ASkippedPassIsAnInstability) {
  const auto learner = MakeLearner();
  const auto episodes = Episodes(*learner);
  LearnerState state = learner->Save();
  for (auto& [name, tensor] : state.tensors) {
    if (name == "weights.state_value_head.8.weight") tensor.fill_(3e38f);
  }
  ASSERT_OK(learner->Restore(state));
  const auto report = learner->ForwardBackward(episodes, FirstPass());
  ASSERT_OK(report);
  EXPECT_TRUE(report->skipped_nonfinite);
  EXPECT_EQ(report->anomalies,
            std::vector<std::string>{"numerical_instability"});
}

}  // namespace
}  // namespace esper::ppo
