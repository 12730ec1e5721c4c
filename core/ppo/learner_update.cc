#include <utility>

#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "core/ppo/learner_core.h"
#include "core/ppo/options_json.h"
#include "nlohmann/json.hpp"
#include "spdlog/spdlog.h"

// The life of an update: optimiser steps, and how it ends, published or taken
// back.
namespace esper::ppo {
namespace {

// Relative distance from the running average that is worth a name.
constexpr double kDriftAlarm = 0.5;

}  // namespace

bool LearnerCore::NoteNonFinite(const std::string& what) {
  const bool rolled_back = config.rollback_failed_updates && RollBackUpdate();
  counters.nonfinite_in_a_row += 1;
  spdlog::warn("training {} dropped: {} is not finite ({} in a row)",
               rolled_back ? "update" : "pass or step", what,
               counters.nonfinite_in_a_row);
  if (counters.nonfinite_in_a_row < config.max_nonfinite_in_a_row) {
    return rolled_back;
  }
  RefuseCall(
      "TRAINING_DIVERGED", what,
      absl::StrCat(counters.nonfinite_in_a_row,
                   " passes or steps in a row were not finite, the last in ",
                   what, "; version ", counters.version, " stays published."),
      "Restore a checkpoint, and train with a smaller learning rate.");
}

OptimStepReport LearnerCore::OptimStep(const OptimStepOptions& options) {
  options.Check();
  if (!has_gradient()) {
    RefuseCall("NOT_DIFFERENTIABLE", "gradient",
               "No gradient has been accumulated since the last step.",
               "Call ForwardBackward, or send cotangents, first.");
  }
  OptimStepReport report;
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : parameters) {
    gradients.push_back(parameter.grad());
  }
  report.gradient_norm_before_clip = GlobalNorm(gradients);
  report.nonfinite_tensor = FirstNonFiniteGradient();
  const double previous_rate = adam.options().learning_rate;
  if (report.nonfinite_tensor.empty()) {
    const c10::NoGradGuard no_grad;
    const double clip =
        options.max_grad_norm / (report.gradient_norm_before_clip + 1e-6);
    if (clip < 1.0) {
      for (at::Tensor& gradient : gradients) {
        if (gradient.defined()) gradient = gradient.mul(clip);
      }
    }
    adam.options().learning_rate =
        options.learning_rate.value_or(previous_rate);
    const double change = adam.Step(gradients);
    report.stepped = change >= 0;
    if (report.stepped) {
      report.weights_change_l2 = change;
    } else {
      report.nonfinite_tensor = "update";
    }
  }
  ClearGradients();
  step_options = ToJson(options).dump();
  if (report.stepped) {
    counters.nonfinite_in_a_row = 0;
    counters.optimizer_steps += 1;
    counters.steps_since_publish += 1;
    moved_since_publish = true;
    generation = NextIdentity();
    const double norm = report.gradient_norm_before_clip;
    const double health = GradientHealth(norm);
    if (const auto moved = drift.Update(norm, health)) {
      if (moved->norm > kDriftAlarm) {
        report.anomalies.push_back("gradient_norm_drift");
      }
      if (moved->health > kDriftAlarm) {
        report.anomalies.push_back("gradient_health_drift");
      }
    }
  } else {
    adam.options().learning_rate = previous_rate;
    report.rolled_back = NoteNonFinite(report.nonfinite_tensor);
  }
  report.optimizer_steps = counters.optimizer_steps;
  return report;
}

void LearnerCore::ClearGradients() {
  for (at::Tensor& parameter : parameters) {
    parameter.mutable_grad() = at::Tensor();
  }
}

std::shared_ptr<const PolicySnapshot> LearnerCore::Publish(int64_t version) {
  TORCH_CHECK(version > counters.version, "version numbers rise: ", version,
              " after ", counters.version);
  const double old_unit = SigmaOf(statistics.values) * deviation;
  if (config.scale_rewards &&
      config.reward_scaling == RewardScaling::kReturns) {
    const double fresh = statistics.returns.deviation();
    statistics.values.Rescale(deviation / fresh);
    deviation = fresh;
  }
  const double unit = SigmaOf(statistics.values) * deviation;
  if (config.popart) RescaleValueHeads(old_unit / unit);
  counters.version = version;
  value_units[version] = unit;
  while (static_cast<int64_t>(value_units.size()) > VersionHistory()) {
    value_units.erase(value_units.begin());
  }
  if (counters.steps_since_publish > 0) counters.updates += 1;
  counters.steps_since_publish = 0;
  scaler_moments = statistics.observations.moments();
  MakeSnapshot(network->StateDict());
  moved_since_publish = false;
  BeginUpdate();
  return snapshot;
}

void LearnerCore::StartHistory(int64_t version) {
  value_units = {{version, value_units.at(counters.version)}};
  counters.version = version;
  start.counters.version = version;
  MakeSnapshot(snapshot->weights);
}

void LearnerCore::BeginUpdate() {
  start = {adam.slots(), adam.options().learning_rate, statistics, counters};
}

bool LearnerCore::RollBackUpdate() {
  const bool weights_moved = moved_since_publish;
  const bool moved = weights_moved || counters.steps_since_publish > 0 ||
                     counters.transitions != start.counters.transitions ||
                     has_gradient();
  ClearGradients();
  if (weights_moved) {
    const absl::Status status = network->LoadStateDict(snapshot->weights);
    TORCH_INTERNAL_ASSERT(status.ok(), status.ToString());
    moved_since_publish = false;
    generation = NextIdentity();
  }
  adam.slots() = start.slots;
  adam.options().learning_rate = start.learning_rate;
  statistics = start.statistics;
  const int64_t failures = counters.nonfinite_in_a_row;
  counters = start.counters;
  counters.nonfinite_in_a_row = failures;
  return moved;
}

void LearnerCore::MakeSnapshot(NamedTensors weights) {
  auto made = std::make_shared<PolicySnapshot>();
  made->version = counters.version;
  made->weights = std::move(weights);
  made->value_unit = value_units.at(counters.version);
  made->floor_scale = config.FloorScaleAt(counters.updates);
  made->floors = spec.Floors().Scaled(made->floor_scale);
  if (config.normalize_observations && scaler_moments.count > 0) {
    ObservationNormalizer frozen = statistics.observations;
    TORCH_INTERNAL_ASSERT(frozen.Restore(scaler_moments).ok());
    made->scaler = frozen.Scaler();
  }
  snapshot = std::move(made);
}

}  // namespace esper::ppo
