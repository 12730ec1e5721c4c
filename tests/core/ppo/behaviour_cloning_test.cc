#include "core/ppo/behaviour_cloning.h"

#include <vector>

#include "ATen/TensorOperators.h"
#include "ATen/ops/full.h"
#include "ATen/ops/zeros.h"
#include "absl/strings/match.h"
#include "core/error.h"
#include "core/policy/head_layout.h"
#include "gtest/gtest.h"
#include "tests/core/ppo/learner_fixture.h"
#include "tests/testing/status_matchers.h"

namespace esper::ppo {
namespace {

using ::esper::testing::Refused;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

// The same episodes with nothing but what was seen and done.
std::vector<Trajectory> Demonstrations(const std::vector<Trajectory>& full) {
  std::vector<Trajectory> rows;
  for (const Trajectory& row : full) {
    Trajectory bare;
    bare.spec_digest = row.spec_digest;
    bare.observations = row.observations;
    bare.categorical = row.categorical;
    bare.action_masks = row.action_masks;
    bare.actions = row.actions;
    bare.continuous_actions = row.continuous_actions;
    bare.effective_choices = row.effective_choices;
    bare.forced = row.forced;
    bare.initial_h = row.initial_h;
    bare.initial_c = row.initial_c;
    rows.push_back(bare);
  }
  return rows;
}

TEST(BehaviourCloningTest, TermEqualsTheReferenceStepByStep) {
  const auto learner = MakeLearner();
  auto episodes = Episodes(*learner);
  const policy::PolicySpec& spec = learner->spec();
  const policy::HeadLayout layout(spec);
  const int64_t driver = spec.HeadIndex("op");
  episodes[1].effective_choices = at::full(
      {episodes[1].length()}, spec.heads[driver].idle_choice, at::kLong);
  const auto evaluation = learner->Evaluate(episodes, /*keep_graph=*/false);
  ASSERT_OK(evaluation);
  const at::Tensor log_probs = (*evaluation)->Numbers().log_probs;
  double sum = 0, unforced = 0;
  for (size_t b = 0; b < episodes.size(); ++b) {
    const Trajectory& row = episodes[b];
    for (int64_t t = 0; t < row.length(); ++t) {
      if (row.forced[t].item<bool>()) continue;
      unforced += 1;
      const int64_t effective = row.effective_choices.defined()
                                    ? row.effective_choices[t].item<int64_t>()
                                    : row.actions[t][driver].item<int64_t>();
      for (int64_t k = 0; k < spec.num_heads(); ++k) {
        if (layout.driver(k) >= 0 && !layout.Relevant(k, effective)) continue;
        sum -= log_probs[static_cast<int64_t>(b)][t][k].item<double>();
      }
    }
  }
  BehaviourCloningOptions options;
  options.entropy_coef = 0.25;
  const auto report = learner->ForwardBackward(episodes, options);
  ASSERT_OK(report);
  EXPECT_NEAR(report->metrics.at("policy"), sum / unforced, 1e-4);
  EXPECT_NEAR(report->metrics.at("total"),
              sum / unforced + 0.25 * report->metrics.at("entropy"), 1e-4);
  EXPECT_LT(report->metrics.at("entropy"), 0);
  EXPECT_GT(report->metrics.at("gradient_norm"), 0);
  EXPECT_EQ(report->metrics.count("value"), 0);
}

TEST(BehaviourCloningTest, ReadsOnlyWhatWasSeenAndDone) {
  const auto learner = MakeLearner();
  const auto full = Episodes(*learner);
  BehaviourCloningOptions options;
  options.update_statistics = true;
  ASSERT_OK(learner->ForwardBackward(full, options));
  const NamedTensors expected = learner->Gradients();
  for (const auto& [name, gradient] : expected) {
    const bool policy = absl::StrContains(name, "op_head");
    const bool critic = absl::StartsWith(name, "state_value_head.") ||
                        absl::StartsWith(name, "q_head.");
    const double norm = gradient.norm().item<double>();
    if (policy) {
      EXPECT_GT(norm, 0) << name;
    }
    if (critic) {
      EXPECT_EQ(norm, 0) << name;
    }
  }
  EXPECT_EQ(learner->value_sigma(), 1.0);
  EXPECT_EQ(learner->transitions_trained(), 28);

  const auto bare_learner = MakeLearner();
  auto bare = Demonstrations(full);
  ASSERT_OK(bare_learner->ForwardBackward(bare, options));
  ExpectSame(bare_learner->Gradients(), expected);
  // What is there and not read may be anything.
  bare_learner->ClearGradients();
  bare[0].rewards = at::full({1}, kNan, at::kFloat);
  bare[1].behaviour_log_probs = at::zeros({2, 2});
  bare[2].policy_versions = at::full({4}, -7, at::kLong);
  bare[3].bootstrap_value = kNan;
  options.update_statistics = false;
  ASSERT_OK(bare_learner->ForwardBackward(bare, options));
  ExpectSame(bare_learner->Gradients(), expected);
}

TEST(BehaviourCloningTest, RefusesWhatCannotBeImitated) {
  const auto learner = MakeLearner();
  const auto good = Demonstrations(Episodes(*learner));
  const auto refused = [&](const char* reason, auto change) {
    auto rows = good;
    change(rows[1]);
    const absl::Status status =
        learner->ForwardBackward(rows, BehaviourCloningOptions()).status();
    EXPECT_EQ(DetailOf(status).value_or(ErrorDetail()).reason, reason);
    EXPECT_EQ(DetailOf(status).value_or(ErrorDetail()).row, 1);
    EXPECT_FALSE(learner->has_gradient());
  };
  refused("SPEC_MISMATCH", [](Trajectory& row) { row.spec_digest = ""; });
  refused("NONFINITE_INPUT", [](Trajectory& row) {
    row.observations = row.observations.clone();
    row.observations[2][0].fill_(kNan);
  });
  refused("INVALID_ACTION", [](Trajectory& row) {
    row.actions = row.actions.clone();
    row.actions[1][7].fill_(99);
  });
  refused("BAD_SHAPE",
          [](Trajectory& row) { row.action_masks = at::Tensor(); });
  BehaviourCloningOptions options;
  options.entropy_coef = -1;
  EXPECT_THAT(learner->ForwardBackward(good, options),
              Refused(kInvalid, "MALFORMED_REQUEST"));
  // The other losses do need an outcome.
  EXPECT_THAT(learner->ForwardBackward(good, PpoOptions()),
              Refused(kInvalid, "MALFORMED_REQUEST"));
}

TEST(BehaviourCloningTest, MakesTheRecordedActionsLikely) {
  const auto teacher = MakeLearner(TestConfig(), /*seed=*/4);
  const auto student = MakeLearner();
  const auto rows = Demonstrations(Episodes(*teacher, {20, 20, 20}));
  OptimStepOptions step;
  step.learning_rate = 5e-3;
  double first = 0, last = 0;
  for (int i = 0; i < 30; ++i) {
    const auto report =
        student->ForwardBackward(rows, BehaviourCloningOptions());
    ASSERT_OK(report);
    last = report->metrics.at("policy");
    if (i == 0) first = last;
    ASSERT_OK(student->OptimStep(step));
  }
  EXPECT_LT(last, 0.5 * first);
}

}  // namespace
}  // namespace esper::ppo
