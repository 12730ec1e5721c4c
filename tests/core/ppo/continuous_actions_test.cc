// Training of policies with Gaussian heads.
#include <cmath>
#include <functional>
#include <limits>

#include "ATen/Parallel.h"
#include "ATen/ops/full.h"
#include "ATen/ops/zeros.h"
#include "core/error.h"
#include "core/policy/inference_policy.h"
#include "core/ppo/learner.h"
#include "core/ppo/trajectory_rules.h"
#include "gtest/gtest.h"
#include "tests/core/ppo/rollout.h"
#include "tests/testing/status_matchers.h"

namespace esper::ppo {
namespace {

using ::esper::testing::Refused;
using policy::HeadSpec;
using policy::PolicySpec;

// Where to go, or how hard to push and pull.
PolicySpec HybridSpec() {
  HeadSpec push = HeadSpec::Gaussian("push", 2, 8);
  push.driver = "mode";
  push.relevant_when = {1};
  PolicySpec spec =
      PolicySpec::Plain(3, {HeadSpec::Categorical("mode", 2, 8), push,
                            HeadSpec::Gaussian("pull", 1, 8)});
  spec.feature_dim = 16;
  spec.hidden_dim = 16;
  return spec;
}

class ContinuousTrajectoryTest : public ::testing::Test {
 protected:
  ContinuousTrajectoryTest() {
    at::set_num_threads(1);
    learner_ = *Learner::Create(spec_, LearnerConfig(), 5);
    RolloutOptions options;
    options.lengths = {8, 5};
    options.seed = 3;
    episodes_ = Rollout(spec_, *learner_->published(), options);
  }

  ErrorDetail ExpectRefusal(const char* reason,
                            const std::function<void(Trajectory&)>& spoil) {
    Trajectory row = episodes_[0];
    row.actions = row.actions.clone();
    row.continuous_actions = row.continuous_actions.clone();
    row.behaviour_log_probs = row.behaviour_log_probs.clone();
    spoil(row);
    const absl::Status status = rules_.Validate(row, 3);
    EXPECT_THAT(status, Refused(absl::StatusCode::kInvalidArgument, reason));
    const ErrorDetail detail = DetailOf(status).value_or(ErrorDetail());
    EXPECT_EQ(detail.row, 3);
    return detail;
  }
  // First step that does, or does not, push.
  int64_t FindStep(bool pushes) const {
    for (int64_t t = 0; t < episodes_[0].length(); ++t) {
      if (episodes_[0].actions[t][0].item<int64_t>() == pushes) return t;
    }
    ADD_FAILURE() << "the rollout has no such step";
    return 0;
  }

  const PolicySpec spec_ = HybridSpec();
  const TrajectoryRules rules_{spec_, 10};
  std::unique_ptr<Learner> learner_;
  std::vector<Trajectory> episodes_;
};

TEST_F(ContinuousTrajectoryTest, AcceptsWhatWasActed) {
  for (const Trajectory& row : episodes_) EXPECT_OK(rules_.Validate(row, 0));
}

TEST_F(ContinuousTrajectoryTest, RefusesActionsThatAreNotThere) {
  EXPECT_EQ(
      ExpectRefusal("BAD_SHAPE",
                    [](Trajectory& t) { t.continuous_actions = at::Tensor(); })
          .tensor,
      "continuous_actions");
  ExpectRefusal("BAD_SHAPE", [](Trajectory& t) {
    t.continuous_actions = at::zeros({8, 2});
  });
  ExpectRefusal("BAD_SHAPE", [](Trajectory& t) {
    t.continuous_actions = t.continuous_actions.to(at::kDouble);
  });
}

TEST_F(ContinuousTrajectoryTest, RefusesNumbersThatCannotBeNamingTheStep) {
  const ErrorDetail nan = ExpectRefusal("NONFINITE_INPUT", [](Trajectory& t) {
    t.continuous_actions[4][1] = std::nanf("");
  });
  EXPECT_EQ(nan.tensor, "continuous_actions");
  EXPECT_EQ(nan.step, 4);
  const int64_t idle = FindStep(/*pushes=*/false);
  const ErrorDetail used = ExpectRefusal("INVALID_ACTION", [&](Trajectory& t) {
    t.continuous_actions[idle][0] = 0.5;
  });
  EXPECT_EQ(used.field, "push");
  EXPECT_EQ(used.step, idle);
  EXPECT_EQ(ExpectRefusal("INVALID_ACTION",
                          [](Trajectory& t) { t.actions[2][2] = 1; })
                .field,
            "pull");
}

TEST_F(ContinuousTrajectoryTest, LogDensitiesMayBePositiveWithinReason) {
  const auto with = [this](float log_prob) {
    Trajectory row = episodes_[0];
    row.behaviour_log_probs = row.behaviour_log_probs.clone();
    row.behaviour_log_probs[0][2] = log_prob;
    return rules_.Validate(row, 3);
  };
  EXPECT_OK(with(12.0f));
  EXPECT_OK(with(-900.0f));
  for (const float log_prob : {25.0f, -1100.0f}) {
    EXPECT_THAT(with(log_prob),
                Refused(absl::StatusCode::kInvalidArgument, "BAD_BEHAVIOUR"));
  }
  const int64_t idle = FindStep(/*pushes=*/false);
  EXPECT_EQ(ExpectRefusal(
                "BAD_BEHAVIOUR",
                [&](Trajectory& t) { t.behaviour_log_probs[idle][1] = 0.5; })
                .field,
            "push");
}

TEST_F(ContinuousTrajectoryTest, APolicyWithoutGaussianHeadsTakesNone) {
  const PolicySpec spec = BanditSpec(3);
  const auto learner = Learner::Create(spec, LearnerConfig(), 5);
  RolloutOptions options;
  Trajectory row = Rollout(spec, *(*learner)->published(), options)[0];
  const TrajectoryRules rules(spec, 10);
  EXPECT_OK(rules.Validate(row, 0));
  row.continuous_actions = at::zeros({row.length(), 1});
  EXPECT_THAT(rules.Validate(row, 0),
              Refused(absl::StatusCode::kInvalidArgument, "BAD_SHAPE"));
}

TEST_F(ContinuousTrajectoryTest, PaddingKeepsTheRows) {
  const TrajectoryBatch batch = PadTrajectories(episodes_, rules_.driver());
  ASSERT_EQ(batch.continuous_actions.sizes().vec(),
            (std::vector<int64_t>{2, 8, 3}));
  EXPECT_TRUE(batch.continuous_actions[1].narrow(0, 0, 5).equal(
      episodes_[1].continuous_actions));
}

TEST_F(ContinuousTrajectoryTest, ActingAndTrainingAgree) {
  PpoOptions pass;
  pass.update_statistics = true;
  const auto report = learner_->ForwardBackward(episodes_, pass);
  ASSERT_OK(report);
  ASSERT_TRUE(report->ratio_check_max.has_value());
  EXPECT_LE(*report->ratio_check_max, 1e-5);
  EXPECT_TRUE(report->accumulated);
  EXPECT_NEAR(report->metrics.at("entropy.pull"),
              0.5 * std::log(2 * M_PI * M_E), 1e-5);
  // Deviations are trained too.
  bool found = false;
  for (const auto& [name, gradient] : learner_->Gradients()) {
    if (name != "pull_head.log_std") continue;
    found = true;
    EXPECT_GT(gradient.abs().max().item<float>(), 0);
  }
  EXPECT_TRUE(found);

  // Other values than those acted are not this policy's behaviour.
  learner_->ClearGradients();
  std::vector<Trajectory> other = episodes_;
  other[0].continuous_actions = other[0].continuous_actions.clone();
  other[0].continuous_actions[1][2] += 0.5;
  EXPECT_THAT(
      learner_->ForwardBackward(other, pass),
      Refused(absl::StatusCode::kFailedPrecondition, "BEHAVIOUR_MISMATCH"));
}

TEST_F(ContinuousTrajectoryTest, EntropyFloorsLeaveGaussianHeadsAlone) {
  PpoOptions plain, floored;
  plain.totals_only = floored.totals_only = true;
  floored.entropy_floors["pull"] = 1000;
  floored.entropy_floor_coefs["pull"] = 1;
  const auto a = learner_->ForwardBackward(episodes_, plain);
  const auto b = learner_->ForwardBackward(episodes_, floored);
  ASSERT_OK(a);
  ASSERT_OK(b);
  EXPECT_EQ(a->metrics.at("total"), b->metrics.at("total"));
}

// One step, reward -|a - optimum|^2: the best mean is the optimum, and the
// best deviation 0.
TEST(ContinuousBanditTest, LearnsTheOptimum) {
  at::set_num_threads(1);
  const std::vector<float> optimum = {0.7f, -0.4f};
  PolicySpec spec = PolicySpec::Plain(2, {HeadSpec::Gaussian("arm", 2, 16)});
  spec.feature_dim = 16;
  spec.hidden_dim = 16;
  auto learner = Learner::Create(spec, LearnerConfig(), 7);
  ASSERT_OK(learner);
  double reward = -10;
  double first = 0;
  int update = 0;
  for (; update < 150 && reward < -0.02; ++update) {
    RolloutOptions options;
    options.lengths.assign(64, 1);
    options.seed = 100 + update;
    options.continuous_reward = [&](int64_t, int64_t, const at::Tensor& a) {
      const float x = a[0].item<float>() - optimum[0];
      const float y = a[1].item<float>() - optimum[1];
      return -(x * x + y * y);
    };
    const auto episodes = Rollout(spec, *(*learner)->published(), options);
    reward = 0;
    for (const Trajectory& row : episodes) {
      reward += row.rewards[0].item<double>() / 64;
    }
    if (update == 0) first = reward;
    PpoOptions pass;
    for (int k = 0; k < 4; ++k) {
      pass.update_statistics = k == 0;
      const auto report = (*learner)->ForwardBackward(episodes, pass);
      ASSERT_OK(report);
      if (report->kl_stop) break;
      OptimStepOptions step;
      step.learning_rate = 1e-2;
      ASSERT_OK((*learner)->OptimStep(step));
    }
    (*learner)->Publish();
  }
  // Two dimensions of deviation 1 around means near 0.
  EXPECT_LT(first, -1.5);
  EXPECT_GE(reward, -0.02) << "after " << update << " updates";

  const auto snapshot = (*learner)->published();
  const auto policy = policy::InferencePolicy::Create(spec, snapshot->weights,
                                                      snapshot->version);
  policy::PolicyInputs inputs;
  inputs.observations = at::full({1, 2}, 0.3);
  const policy::ActionSample best =
      (*policy)->GetAction(inputs, policy::NoNoise{});
  for (int64_t j = 0; j < 2; ++j) {
    EXPECT_NEAR(best.continuous_actions[0][j].item<float>(), optimum[j], 0.1);
  }
}

}  // namespace
}  // namespace esper::ppo
