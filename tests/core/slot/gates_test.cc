#include "core/slot/gates.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::slot {
namespace {

using ::esper::testing::StatusIs;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
const GatePolicy kStrict(GateProfile::kStrict);
const GatePolicy kPermissive(GateProfile::kPermissive);

// Passes every gate of both profiles.
GateInputs Good() {
  GateInputs inputs;
  inputs.seed_id = "r0c0-norm";
  inputs.blueprint_id = "norm";
  inputs.stage = SeedStage::kGerminated;
  inputs.epochs_in_stage = 10;
  inputs.improvement_since_stage_start = 0.5;
  inputs.contribution = 1.0;
  inputs.gradient_ratio = 0.10;
  inputs.gradient_health = 0.7;
  inputs.alpha.alpha = 1.0;
  inputs.alpha.target = 1.0;
  return inputs;
}

GateResult Evaluate(const GatePolicy& policy, SeedStage target,
                    const GateInputs& inputs) {
  return policy.Evaluate(target, inputs, absl::UnixEpoch()).value();
}

bool Failed(const GateResult& result, const std::string& check) {
  return std::any_of(
      result.checks_failed.begin(), result.checks_failed.end(),
      [&](const std::string& id) { return id.rfind(check, 0) == 0; });
}

TEST(GatePolicyTest, GuardsFiveStagesOnly) {
  EXPECT_EQ(GateOf(SeedStage::kGerminated), GateLevel::kG0);
  EXPECT_EQ(GateOf(SeedStage::kTraining), GateLevel::kG1);
  EXPECT_EQ(GateOf(SeedStage::kBlending), GateLevel::kG2);
  EXPECT_EQ(GateOf(SeedStage::kHolding), GateLevel::kG3);
  EXPECT_EQ(GateOf(SeedStage::kFossilized), GateLevel::kG5);
  for (const SeedStage stage :
       {SeedStage::kUnknown, SeedStage::kDormant, SeedStage::kPruned,
        SeedStage::kEmbargoed, SeedStage::kResetting}) {
    EXPECT_THAT(kStrict.Evaluate(stage, Good(), absl::UnixEpoch()),
                StatusIs(absl::StatusCode::kInvalidArgument));
  }
}

TEST(GatePolicyTest, PassesAtEveryThresholdExactly) {
  for (const GatePolicy* policy : {&kStrict, &kPermissive}) {
    for (const SeedStage target :
         {SeedStage::kGerminated, SeedStage::kTraining, SeedStage::kBlending,
          SeedStage::kHolding, SeedStage::kFossilized}) {
      const GateResult result = Evaluate(*policy, target, Good());
      EXPECT_TRUE(result.passed) << StageName(target);
      EXPECT_FALSE(result.checks_passed.empty());
      EXPECT_EQ(result.at, absl::UnixEpoch());
      EXPECT_FALSE(result.message.empty());
    }
  }
}

// One change to good inputs, and the check that must fail by it in each
// profile; empty = the gate still passes there.
struct Row {
  const char* name;
  SeedStage target;
  void (*change)(GateInputs&);
  const char* strict;
  const char* permissive;
};

class GateBoundaryTest : public ::testing::TestWithParam<Row> {};

TEST_P(GateBoundaryTest, DecidesBothProfiles) {
  const Row& row = GetParam();
  GateInputs inputs = Good();
  row.change(inputs);
  const auto check = [&](const GatePolicy& policy, const char* failed) {
    const GateResult result = Evaluate(policy, row.target, inputs);
    if (*failed == '\0') {
      EXPECT_TRUE(result.passed);
      return;
    }
    EXPECT_FALSE(result.passed);
    EXPECT_EQ(result.checks_failed.size(), 1);
    EXPECT_TRUE(Failed(result, failed));
  };
  check(kStrict, row.strict);
  check(kPermissive, row.permissive);
  EXPECT_TRUE(std::isfinite(Evaluate(kStrict, row.target, inputs).score));
}

constexpr SeedStage kG0 = SeedStage::kGerminated, kG1 = SeedStage::kTraining,
                    kG2 = SeedStage::kBlending, kG3 = SeedStage::kHolding,
                    kG5 = SeedStage::kFossilized;

INSTANTIATE_TEST_SUITE_P(
    Boundaries, GateBoundaryTest,
    ::testing::Values(
        Row{"NoSeedId", kG0, [](GateInputs& i) { i.seed_id.clear(); },
            "seed_id_missing", "seed_id_missing"},
        Row{"NoBlueprint", kG0, [](GateInputs& i) { i.blueprint_id.clear(); },
            "blueprint_id_missing", "blueprint_id_missing"},
        Row{"NotGerminated", kG1,
            [](GateInputs& i) { i.stage = SeedStage::kTraining; },
            "not_germinated", "not_germinated"},
        Row{"ImprovementBelow", kG2,
            [](GateInputs& i) {
              i.improvement_since_stage_start = std::nextafter(0.5, 0.0);
            },
            "global_improvement_insufficient", ""},
        Row{"ImprovementAbove", kG2,
            [](GateInputs& i) {
              i.improvement_since_stage_start = std::nextafter(0.5, 1.0);
            },
            "", ""},
        Row{"ImprovementNan", kG2,
            [](GateInputs& i) { i.improvement_since_stage_start = kNan; },
            "global_improvement_insufficient", ""},
        Row{"ImprovementInfinite", kG2,
            [](GateInputs& i) { i.improvement_since_stage_start = kInf; },
            "global_improvement_insufficient", ""},
        Row{"AgeBelow", kG2, [](GateInputs& i) { i.epochs_in_stage = 9; },
            "seed_not_ready", "insufficient_training"},
        Row{"AgeAbove", kG2, [](GateInputs& i) { i.epochs_in_stage = 11; }, "",
            ""},
        Row{"RatioBelow", kG2,
            [](GateInputs& i) { i.gradient_ratio = std::nextafter(0.1, 0.0); },
            "seed_gradient_low", ""},
        Row{"RatioAbsent", kG2,
            [](GateInputs& i) { i.gradient_ratio = std::nullopt; },
            "gradient_stats_never_measured", ""},
        Row{"RatioNan", kG2, [](GateInputs& i) { i.gradient_ratio = kNan; },
            "gradient_stats_never_measured", ""},
        Row{"RatioInfinite", kG2,
            [](GateInputs& i) { i.gradient_ratio = kInf; },
            "gradient_stats_never_measured", ""},
        Row{"HealthBelow", kG2,
            [](GateInputs& i) { i.gradient_health = std::nextafter(0.7, 0.0); },
            "", "gradient_health_low"},
        Row{"HealthAbsent", kG2,
            [](GateInputs& i) { i.gradient_health = std::nullopt; }, "",
            "gradient_health_not_measured"},
        Row{"HealthNan", kG2, [](GateInputs& i) { i.gradient_health = kNan; },
            "", "gradient_health_not_measured"},
        Row{"Exploding", kG2, [](GateInputs& i) { i.exploding = true; }, "",
            "exploding_gradients"},
        Row{"TargetInsideTolerance", kG3,
            [](GateInputs& i) {
              i.alpha.alpha = i.alpha.target = 1.0 - 0.9e-6;
            },
            "", ""},
        Row{"TargetBelow", kG3,
            [](GateInputs& i) {
              i.alpha.alpha = i.alpha.target = 1.0 - 1.1e-6;
            },
            "alpha_target_not_full", "alpha_target_not_full"},
        Row{"AlphaInsideTolerance", kG3,
            [](GateInputs& i) { i.alpha.alpha = 1.0 - 0.9e-6; }, "", ""},
        Row{"AlphaBelow", kG3,
            [](GateInputs& i) { i.alpha.alpha = 1.0 - 1.1e-6; },
            "alpha_not_at_target", "alpha_not_at_target"},
        Row{"AlphaMoving", kG3,
            [](GateInputs& i) { i.alpha.mode = AlphaMode::kUp; },
            "alpha_not_at_target", "alpha_not_at_target"},
        Row{"BlendingTooShort", kG3,
            [](GateInputs& i) { i.epochs_in_stage = 9; }, "blending_incomplete",
            ""},
        Row{"ContributionBelow", kG5,
            [](GateInputs& i) { i.contribution = std::nextafter(1.0, 0.0); },
            "insufficient_contribution", ""},
        Row{"ContributionAbove", kG5,
            [](GateInputs& i) { i.contribution = std::nextafter(1.0, 2.0); },
            "", ""},
        Row{"ContributionNegative", kG5,
            [](GateInputs& i) { i.contribution = -3; },
            "insufficient_contribution", ""},
        Row{"ContributionAbsent", kG5,
            [](GateInputs& i) { i.contribution = std::nullopt; },
            "counterfactual_not_available", "counterfactual_not_available"},
        Row{"ContributionNan", kG5,
            [](GateInputs& i) { i.contribution = kNan; },
            "counterfactual_not_available", "counterfactual_not_available"},
        Row{"ContributionInfinite", kG5,
            [](GateInputs& i) { i.contribution = kInf; },
            "counterfactual_not_available", "counterfactual_not_available"},
        Row{"Unhealthy", kG5, [](GateInputs& i) { i.healthy = false; },
            "unhealthy", "unhealthy"}),
    [](const auto& info) { return info.param.name; });

TEST(GatePolicyTest, ExplodingGradientsHideTheHealthCheck) {
  GateInputs inputs = Good();
  inputs.exploding = true;
  inputs.gradient_health = 0.1;
  const GateResult result = Evaluate(kPermissive, kG2, inputs);
  EXPECT_EQ(result.checks_failed,
            std::vector<std::string>{"exploding_gradients"});
}

TEST(GatePolicyTest, ScoresInTheUnitInterval) {
  GateInputs inputs = Good();
  inputs.improvement_since_stage_start = 2.5;
  EXPECT_DOUBLE_EQ(Evaluate(kStrict, kG2, inputs).score, 0.5);
  inputs.improvement_since_stage_start = 80;
  EXPECT_DOUBLE_EQ(Evaluate(kStrict, kG2, inputs).score, 1.0);
  inputs.improvement_since_stage_start = -1;
  EXPECT_DOUBLE_EQ(Evaluate(kPermissive, kG2, inputs).score, 0.0);
  inputs.alpha.alpha = 0.25;
  EXPECT_DOUBLE_EQ(Evaluate(kStrict, kG3, inputs).score, 0.25);
  inputs.contribution = 4;
  EXPECT_DOUBLE_EQ(Evaluate(kStrict, kG5, inputs).score, 0.4);
}

TEST(GatePolicyTest, CanJudgeByContributionInsteadOfAccuracyGained) {
  GateThresholds thresholds;
  thresholds.improvement_from_contribution = true;
  const GatePolicy policy(GateProfile::kStrict, thresholds);
  GateInputs inputs = Good();
  inputs.improvement_since_stage_start = 30;  // The host's doing.
  inputs.contribution = 0.1;
  EXPECT_FALSE(Evaluate(policy, kG2, inputs).passed);
  EXPECT_TRUE(Evaluate(kStrict, kG2, inputs).passed);
  inputs.contribution = 0.6;
  EXPECT_TRUE(Evaluate(policy, kG2, inputs).passed);
}

}  // namespace
}  // namespace esper::slot
