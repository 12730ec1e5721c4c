#include "core/ppo/importance_sampling.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ATen/TensorOperators.h"
#include "ATen/ops/zeros.h"
#include "core/error.h"
#include "core/policy/head_layout.h"
#include "gtest/gtest.h"
#include "tests/core/ppo/learner_fixture.h"
#include "tests/testing/status_matchers.h"

namespace esper::ppo {
namespace {

using ::esper::testing::Refused;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

// One update with a big step, so that what was acted before is off-policy.
void Update(Learner& learner, uint64_t seed) {
  ASSERT_OK(
      learner.ForwardBackward(Episodes(learner, {8, 8}, seed), FirstPass()));
  OptimStepOptions step;
  step.learning_rate = 0.02;
  ASSERT_OK(learner.OptimStep(step));
  learner.Publish();
}

// The terms of the loss, step by step in double, out of what an evaluation
// says. Values are in units of rewards.
struct Reference {
  double policy = 0, value = 0, q = 0, entropy = 0;
  double ratio_max = 0;
};

Reference Compute(const Learner& learner, const std::vector<Trajectory>& rows,
                  const EvaluationNumbers& now,
                  const ImportanceSamplingOptions& options) {
  const policy::PolicySpec& spec = learner.spec();
  const policy::HeadLayout layout(spec);
  const int64_t heads = spec.num_heads();
  const int64_t driver = spec.HeadIndex("op");
  const auto number = [](const at::Tensor& x, int64_t b, int64_t t) {
    return x[b][t].item<double>();
  };
  Reference sum;
  double unforced = 0, value_weight = 0;
  std::vector<double> available(heads, 0.0), entropies(heads, 0.0);
  for (size_t b = 0; b < rows.size(); ++b) {
    const Trajectory& row = rows[b];
    const int64_t n = row.length();
    const int64_t i = static_cast<int64_t>(b);
    double next_value = row.bootstrap_value.value_or(0);
    double next_target = next_value;
    for (int64_t t = n - 1; t >= 0; --t) {
      const bool forced = row.forced[t].item<bool>();
      const int64_t effective = row.effective_choices.defined()
                                    ? row.effective_choices[t].item<int64_t>()
                                    : row.actions[t][driver].item<int64_t>();
      double log_prob = 0, log_ratio = 0;
      for (int64_t k = 0; k < heads; ++k) {
        const bool used = layout.driver(k) < 0 || layout.Relevant(k, effective);
        if (!used) continue;
        const double log = now.log_probs[i][t][k].item<double>();
        log_prob += log;
        log_ratio += log - row.behaviour_log_probs[t][k].item<double>();
      }
      const double ratio = forced ? 1 : std::exp(log_ratio);
      const double value = number(now.values, i, t);
      const double reward = row.rewards[t].item<double>();
      const double rho = std::min(options.rho_bar, ratio);
      const double c = options.trace_lambda * std::min(options.c_bar, ratio);
      const double q = reward + options.gamma * next_target;
      const double target =
          value + rho * (reward + options.gamma * next_value - value) +
          options.gamma * c * (next_target - next_value);
      const double weight = forced ? 0.2 : 1.0;
      value_weight += weight;
      sum.value += 0.5 * weight * std::pow(value - target, 2);
      sum.q += 0.5 * weight * std::pow(number(now.q_values, i, t) - q, 2);
      if (!forced) {
        unforced += 1;
        sum.ratio_max = std::max(sum.ratio_max, ratio);
        sum.policy -= rho * (q - value) * log_prob;
        for (int64_t k = 0; k < heads; ++k) {
          const at::Tensor could =
              layout.Availability(row.action_masks[t].unsqueeze(0));
          if (layout.driver(k) >= 0 && !could[0][k].item<bool>()) continue;
          available[k] += 1;
          entropies[k] += now.entropies[i][t][k].item<double>();
        }
      }
      next_value = value;
      next_target = target;
    }
  }
  sum.policy /= unforced;
  sum.value /= value_weight;
  sum.q /= value_weight;
  for (int64_t k = 0; k < heads; ++k) {
    sum.entropy -=
        spec.heads[k].entropy_coef * entropies[k] / std::max(available[k], 1.0);
  }
  return sum;
}

TEST(ImportanceSamplingTest, TermsEqualTheReferenceStepByStep) {
  LearnerConfig config = TestConfig();
  config.scale_rewards = false;
  config.normalize_values = false;  // Values in units of rewards.
  config.popart = false;
  const auto learner = MakeLearner(config);
  auto episodes = Episodes(*learner, {12, 20, 7, 9});
  const int64_t driver = learner->spec().HeadIndex("op");
  for (const size_t b : {0, 3}) {
    Trajectory& row = episodes[b];
    row.effective_choices = row.actions.select(1, driver).clone();
    for (int64_t t = 0; t < row.length(); t += 2) {
      row.effective_choices[t].fill_(learner->spec().heads[driver].idle_choice);
    }
  }
  Update(*learner, 5);

  std::vector<ImportanceSamplingOptions> all(3);
  all[1].rho_bar = 1.3;
  all[1].c_bar = 0.6;
  all[1].gamma = 0.9;
  all[2].trace_lambda = 0.5;
  for (const ImportanceSamplingOptions& options : all) {
    const auto evaluation = learner->Evaluate(episodes, /*keep_graph=*/false);
    ASSERT_OK(evaluation);
    const Reference expected =
        Compute(*learner, episodes, (*evaluation)->Numbers(), options);
    const auto report = learner->ForwardBackward(episodes, options);
    ASSERT_OK(report);
    EXPECT_TRUE(report->accumulated);
    const auto& metrics = report->metrics;
    EXPECT_NEAR(metrics.at("policy"), expected.policy, 1e-4);
    EXPECT_NEAR(metrics.at("value"), expected.value, 1e-4);
    EXPECT_NEAR(metrics.at("q"), expected.q, 1e-4);
    EXPECT_NEAR(metrics.at("entropy"), expected.entropy, 1e-4);
    EXPECT_NEAR(metrics.at("ratio_max"), expected.ratio_max,
                1e-4 * expected.ratio_max);
    EXPECT_NEAR(metrics.at("total"),
                expected.policy + 0.5 * expected.value + 0.25 * expected.q +
                    0.01 * expected.entropy,
                1e-3);
    // Far enough from the policy that acted for the weights to matter.
    EXPECT_GT(metrics.at("rho_clipped"), 0.05);
    EXPECT_LT(metrics.at("rho_clipped"), 0.9);
    EXPECT_GT(metrics.at("ratio_max"), 1.5);
    learner->ClearGradients();
  }
}

TEST(ImportanceSamplingTest, TheScaleOfValuesDoesNotChangeItsTargets) {
  // V in units of rewards is what the targets are made of.
  LearnerConfig config = TestConfig();
  config.scale_rewards = false;
  const auto learner = MakeLearner(config);
  const auto episodes = Episodes(*learner, {30, 30});
  const auto before =
      learner->ForwardBackward(episodes, ImportanceSamplingOptions());
  ASSERT_OK(before);
  ImportanceSamplingOptions first;
  first.update_statistics = true;
  const auto after = learner->ForwardBackward(episodes, first);
  ASSERT_OK(after);
  EXPECT_GT(std::fabs(after->metrics.at("value_sigma") - 1), 0.1);
  EXPECT_NEAR(after->metrics.at("return_p50"), before->metrics.at("return_p50"),
              1e-4);
  EXPECT_NEAR(after->metrics.at("policy"), before->metrics.at("policy"), 1e-4);
  const double sigma = after->metrics.at("value_sigma");
  EXPECT_NEAR(after->metrics.at("value") * sigma * sigma,
              before->metrics.at("value"), 1e-3);
}

TEST(ImportanceSamplingTest, AdmitsStepsThatPpoRefusesAsTooOld) {
  const auto learner = MakeLearner();
  const auto old = Episodes(*learner);
  for (uint64_t i = 0; i < 4; ++i) Update(*learner, 10 + i);
  EXPECT_THAT(learner->ForwardBackward(old, PpoOptions()),
              Refused(kPrecondition, "STALE_BEHAVIOUR"));
  ImportanceSamplingOptions options;
  const auto report = learner->ForwardBackward(old, options);
  ASSERT_OK(report);
  EXPECT_TRUE(report->accumulated);
  EXPECT_EQ(report->metrics.at("version_lag"), 4);
  // Nothing of the published version was there to check.
  EXPECT_FALSE(report->ratio_check_max.has_value());
  options.max_version_lag = 4;
  EXPECT_OK(learner->ForwardBackward(old, options));
  options.max_version_lag = 3;
  const absl::Status refused = learner->ForwardBackward(old, options).status();
  EXPECT_THAT(refused, Refused(kPrecondition, "STALE_BEHAVIOUR"));
  // A restored learner still knows the units of old versions.
  const auto restored = Learner::CreateFromState(
      learner->spec(), learner->config(), learner->Save());
  ASSERT_OK(restored);
  EXPECT_OK((*restored)->ForwardBackward(old, ImportanceSamplingOptions()));
}

TEST(ImportanceSamplingTest, ChecksRatiosOfThePublishedVersion) {
  const auto learner = MakeLearner();
  auto episodes = Episodes(*learner);
  const auto report =
      learner->ForwardBackward(episodes, ImportanceSamplingOptions());
  ASSERT_OK(report);
  ASSERT_TRUE(report->ratio_check_max.has_value());
  EXPECT_LE(*report->ratio_check_max, 1e-4);
  EXPECT_NEAR(report->metrics.at("ratio_mean"), 1, 1e-4);
  at::Tensor log_probs = episodes[1].behaviour_log_probs.clone();
  log_probs[3][7] -= 0.05;
  episodes[1].behaviour_log_probs = log_probs;
  EXPECT_THAT(learner->ForwardBackward(episodes, ImportanceSamplingOptions()),
              Refused(kPrecondition, "BEHAVIOUR_MISMATCH"));
}

TEST(ImportanceSamplingTest, RefusesSettingsOutOfRangeNamingThem) {
  const auto learner = MakeLearner();
  const auto episodes = Episodes(*learner);
  const auto refused = [&](const char* field, auto change) {
    ImportanceSamplingOptions options;
    change(options);
    const absl::Status status =
        learner->ForwardBackward(episodes, options).status();
    EXPECT_THAT(status, Refused(kInvalid, "MALFORMED_REQUEST"));
    EXPECT_EQ(DetailOf(status)->field, field);
  };
  using O = ImportanceSamplingOptions;
  refused("gamma", [](O& o) { o.gamma = 0; });
  refused("rho_bar", [](O& o) { o.rho_bar = -1; });
  refused("c_bar", [](O& o) { o.c_bar = 1.5; });
  refused("trace_lambda", [](O& o) { o.trace_lambda = kNan; });
  refused("value_coef", [](O& o) { o.value_coef = -1; });
  refused("entropy_coef", [](O& o) { o.entropy_coef = kNan; });
  refused("max_version_lag", [](O& o) { o.max_version_lag = 128; });
  refused("ratio_refuse", [](O& o) { o.ratio_refuse = 0; });
  EXPECT_FALSE(learner->has_gradient());
}

}  // namespace
}  // namespace esper::ppo
