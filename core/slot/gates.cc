#include "core/slot/gates.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace esper::slot {
namespace {

std::string WithNumber(const char* check, double value) {
  return absl::StrFormat("%s_%.2f", check, value);
}

std::string WithPercent(const char* check, double value) {
  return absl::StrFormat("%s_%.2f%%", check, value);
}

void Check(GateResult& result, bool ok, std::string passed,
           std::string failed) {
  if (ok) {
    result.checks_passed.push_back(std::move(passed));
  } else {
    result.checks_failed.push_back(std::move(failed));
  }
}

std::optional<double> Finite(const std::optional<double>& value) {
  return value && std::isfinite(*value) ? value : std::nullopt;
}

double PositiveShare(double value, double full) {
  return value > 0 ? std::min(1.0, value / full) : 0.0;
}

}  // namespace

const char* GateLevelName(GateLevel level) {
  switch (level) {
    case GateLevel::kG0:
      return "G0";
    case GateLevel::kG1:
      return "G1";
    case GateLevel::kG2:
      return "G2";
    case GateLevel::kG3:
      return "G3";
    case GateLevel::kG5:
      return "G5";
  }
  return "?";
}

std::optional<GateLevel> GateOf(SeedStage target) {
  switch (target) {
    case SeedStage::kGerminated:
      return GateLevel::kG0;
    case SeedStage::kTraining:
      return GateLevel::kG1;
    case SeedStage::kBlending:
      return GateLevel::kG2;
    case SeedStage::kHolding:
      return GateLevel::kG3;
    case SeedStage::kFossilized:
      return GateLevel::kG5;
    default:
      return std::nullopt;
  }
}

absl::StatusOr<GateResult> GatePolicy::Evaluate(SeedStage target,
                                                const GateInputs& inputs,
                                                absl::Time now) const {
  const std::optional<GateLevel> level = GateOf(target);
  if (!level) {
    return absl::InvalidArgumentError(
        absl::StrCat("No gate guards stage ", StageName(target), "."));
  }
  GateResult result;
  switch (*level) {
    case GateLevel::kG0:
      result = EvaluateG0(inputs);
      break;
    case GateLevel::kG1:
      result = EvaluateG1(inputs);
      break;
    case GateLevel::kG2:
      result = EvaluateG2(inputs);
      break;
    case GateLevel::kG3:
      result = EvaluateG3(inputs);
      break;
    case GateLevel::kG5:
      result = EvaluateG5(inputs);
      break;
  }
  result.level = *level;
  result.passed = result.checks_failed.empty();
  result.at = now;
  return result;
}

GateResult GatePolicy::EvaluateG0(const GateInputs& inputs) const {
  GateResult result;
  Check(result, !inputs.seed_id.empty(), "seed_id_present", "seed_id_missing");
  Check(result, !inputs.blueprint_id.empty(), "blueprint_id_present",
        "blueprint_id_missing");
  result.score = result.checks_failed.empty() ? 1 : 0;
  result.message = result.checks_failed.empty() ? "The seed has its identity."
                                                : "The seed lacks identity.";
  return result;
}

GateResult GatePolicy::EvaluateG1(const GateInputs& inputs) const {
  GateResult result;
  const bool germinated = inputs.stage == SeedStage::kGerminated;
  Check(result, germinated, "germinated", "not_germinated");
  result.score = germinated ? 1 : 0;
  result.message = absl::StrCat("The seed is ", StageName(inputs.stage), ".");
  return result;
}

GateResult GatePolicy::EvaluateG2(const GateInputs& inputs) const {
  GateResult result;
  const GateThresholds& t = thresholds_;
  const double improvement = t.improvement_from_contribution
                                 ? Finite(inputs.contribution).value_or(0)
                                 : inputs.improvement_since_stage_start;
  const bool old_enough = inputs.epochs_in_stage >= t.min_blending_epochs;
  result.score = PositiveShare(improvement, 5.0);

  if (profile_ == GateProfile::kPermissive) {
    Check(result, old_enough,
          absl::StrCat("trained_", inputs.epochs_in_stage, "_epochs"),
          absl::StrCat("insufficient_training_", inputs.epochs_in_stage, "_of_",
                       t.min_blending_epochs));
    const std::optional<double> health = Finite(inputs.gradient_health);
    if (!health) {
      result.checks_failed.push_back("gradient_health_not_measured");
    } else {
      Check(result, !inputs.exploding, "no_exploding_gradients",
            "exploding_gradients");
      if (!inputs.exploding) {
        Check(result, *health >= t.min_gradient_health,
              WithNumber("gradient_health", *health),
              absl::StrFormat("gradient_health_low_%.2f_need_%.2f", *health,
                              t.min_gradient_health));
      }
    }
    result.message = "Permissive: training time and gradient health.";
    return result;
  }

  Check(result, std::isfinite(improvement) && improvement >= t.min_improvement,
        WithPercent("global_improvement", improvement),
        WithPercent("global_improvement_insufficient", improvement));
  Check(result, old_enough, "seed_ready", "seed_not_ready");
  const std::optional<double> ratio = Finite(inputs.gradient_ratio);
  if (!ratio) {
    result.checks_failed.push_back("gradient_stats_never_measured");
  } else {
    Check(result, *ratio >= t.min_gradient_ratio,
          WithNumber("seed_gradient_active", *ratio),
          WithNumber("seed_gradient_low", *ratio));
  }
  result.message = absl::StrFormat("Improvement of %.2f points.", improvement);
  return result;
}

GateResult GatePolicy::EvaluateG3(const GateInputs& inputs) const {
  GateResult result;
  const GateThresholds& t = thresholds_;
  const AlphaState& alpha = inputs.alpha;
  Check(result, alpha.target >= 1.0 - t.alpha_tolerance, "alpha_target_full",
        WithNumber("alpha_target_not_full", alpha.target));
  Check(result,
        alpha.mode == AlphaMode::kHold &&
            std::abs(alpha.alpha - alpha.target) <= t.alpha_tolerance,
        "alpha_target_reached",
        absl::StrFormat("alpha_not_at_target_%.2f_target_%.2f_mode_%s",
                        alpha.alpha, alpha.target, AlphaModeName(alpha.mode)));
  if (profile_ == GateProfile::kStrict) {
    Check(result, inputs.epochs_in_stage >= t.min_blending_epochs,
          "blending_complete",
          absl::StrCat("blending_incomplete_", inputs.epochs_in_stage));
  }
  result.score = alpha.alpha;
  result.message = absl::StrFormat("Alpha %.2f of %.2f, %s.", alpha.alpha,
                                   alpha.target, AlphaModeName(alpha.mode));
  return result;
}

GateResult GatePolicy::EvaluateG5(const GateInputs& inputs) const {
  GateResult result;
  const std::optional<double> contribution = Finite(inputs.contribution);
  if (!contribution) {
    result.checks_failed.push_back("counterfactual_not_available");
    result.message = "The seed's contribution was never measured.";
    return result;
  }
  result.checks_passed.push_back(
      WithPercent("counterfactual_available", *contribution));
  Check(result, inputs.healthy, "healthy", "unhealthy");
  if (profile_ == GateProfile::kStrict) {
    Check(result, *contribution >= thresholds_.min_contribution,
          WithPercent("sufficient_contribution", *contribution),
          absl::StrFormat("insufficient_contribution_%.2f%%_below_%.2f%%",
                          *contribution, thresholds_.min_contribution));
  }
  result.score = PositiveShare(*contribution, 10.0);
  result.message =
      absl::StrFormat("Contribution of %.2f points.", *contribution);
  return result;
}

}  // namespace esper::slot
