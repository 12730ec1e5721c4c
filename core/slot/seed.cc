#include "core/slot/seed.h"

#include <ATen/ops/full.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace esper::slot {
namespace {

void StartBlending(Seed& seed) {
  // A fresh controller at the present alpha; neither call can fail, since
  // alpha, target and steepness are finite and the controller rests.
  AlphaState state;
  state.alpha = seed.alpha.alpha();
  seed.alpha = AlphaController::FromState(state).value();
  seed.alpha
      .Retarget(seed.alpha_target, seed.tempo, CurveOf(seed.blend_id),
                kDefaultSteepness)
      .IgnoreError();
  seed.metrics.current_alpha = seed.alpha.alpha();
}

bool AllTrainable(const std::vector<at::Tensor>& parameters) {
  return std::all_of(parameters.begin(), parameters.end(),
                     [](const auto& p) { return p.requires_grad(); });
}

}  // namespace

const char* BlendIdName(BlendId id) {
  switch (id) {
    case BlendId::kLinear:
      return "linear";
    case BlendId::kSigmoid:
      return "sigmoid";
    case BlendId::kGated:
      return "gated";
  }
  return "?";
}

absl::StatusOr<BlendId> ParseBlendId(const std::string& name) {
  if (name == "linear") return BlendId::kLinear;
  if (name == "sigmoid") return BlendId::kSigmoid;
  if (name == "gated") return BlendId::kGated;
  return absl::InvalidArgumentError(absl::StrCat(
      "Blend must be linear, sigmoid or gated, got \"", name, "\"."));
}

AlphaCurve CurveOf(BlendId id) {
  return id == BlendId::kSigmoid ? AlphaCurve::kSigmoid : AlphaCurve::kLinear;
}

std::vector<at::Tensor> SeedParameters(const Seed& seed) {
  std::vector<at::Tensor> parameters;
  if (seed.module) parameters = seed.module->parameters();
  if (seed.gate) {
    for (at::Tensor& parameter : seed.gate->parameters()) {
      parameters.push_back(std::move(parameter));
    }
  }
  return parameters;
}

bool EnterStage(Seed& seed, SeedStage to, absl::Time now) {
  const SeedStage from = seed.stage.stage();
  SeedMetrics& metrics = seed.metrics;
  if (!seed.stage.Transition(to, now, metrics.epochs_in_stage)) return false;
  metrics.stage_start_accuracy = metrics.current_accuracy;
  metrics.epochs_in_stage = 0;
  if (from == SeedStage::kGerminated && to == SeedStage::kTraining) {
    seed.isolated = true;
  } else if (from == SeedStage::kTraining && to == SeedStage::kBlending) {
    seed.isolated = seed.topology == Topology::kCnn;
    metrics.blending_start_accuracy = metrics.current_accuracy;
    metrics.blending_started = true;
    StartBlending(seed);
  } else if (from == SeedStage::kBlending && to == SeedStage::kHolding) {
    seed.alpha.RestAt(1.0);
    metrics.current_alpha = 1.0;
  }
  return true;
}

void UpdateBlendOutFreeze(Seed& seed) {
  const bool down = seed.alpha.mode() == AlphaMode::kDown;
  std::vector<at::Tensor> changing;
  if (down) {
    for (at::Tensor& parameter : SeedParameters(seed)) {
      if (parameter.requires_grad()) changing.push_back(std::move(parameter));
    }
  } else {
    changing.swap(seed.frozen);
  }
  if (changing.empty()) return;
  absl::MutexLock lock(seed.trainability.get());
  for (at::Tensor& parameter : changing) parameter.set_requires_grad(!down);
  if (down) {
    seed.frozen.insert(seed.frozen.end(), changing.begin(), changing.end());
  }
}

bool ApplyPrune(Seed& seed, bool automatic, const std::string& reason,
                absl::Time now) {
  if (!EnterStage(seed, SeedStage::kPruned, now)) return false;
  if (automatic) {
    seed.metrics.auto_pruned = true;
    seed.metrics.auto_prune_reason = reason;
  }
  seed.module = nullptr;
  seed.gate = nullptr;
  seed.frozen.clear();
  seed.isolated = false;
  seed.alpha.Reset();
  seed.metrics.current_alpha = 0;
  seed.prune_reason.clear();
  seed.prune_initiator.clear();
  return true;
}

void ApplyGradientReading(Seed& seed, const GradientReading& reading) {
  if (reading.output_finite) seed.output_healthy = *reading.output_finite;
  if (!reading.sampled) return;
  seed.gradients = reading;
  if (reading.measured()) {
    seed.gradients_healthy = !reading.has_exploding.value_or(false);
  }
  SeedMetrics& metrics = seed.metrics;
  constexpr double kDecay = kGradientEmaDecay;
  if (reading.seed_norm) {
    metrics.gradient_norm_avg =
        kDecay * metrics.gradient_norm_avg + (1 - kDecay) * *reading.seed_norm;
  }
  if (reading.ratio) {
    metrics.gradient_ratio_ema = metrics.gradient_ratio_ema
                                     ? kDecay * *metrics.gradient_ratio_ema +
                                           (1 - kDecay) * *reading.ratio
                                     : *reading.ratio;
    metrics.gradient_ratio = metrics.gradient_ratio_ema;
  } else {
    metrics.gradient_ratio = std::nullopt;
  }
}

bool IsHealthy(const Seed& seed) {
  return seed.gradients_healthy && seed.output_healthy;
}

GateInputs GateInputsOf(const Seed& seed) {
  GateInputs inputs;
  inputs.seed_id = seed.seed_id;
  inputs.blueprint_id = seed.blueprint_id;
  inputs.stage = seed.stage.stage();
  inputs.epochs_in_stage = seed.metrics.epochs_in_stage;
  inputs.improvement_since_stage_start =
      seed.metrics.improvement_since_stage_start();
  inputs.contribution = seed.metrics.contribution;
  inputs.gradient_ratio = seed.metrics.gradient_ratio;
  inputs.gradient_health = seed.gradients.health;
  inputs.exploding = seed.gradients.has_exploding.value_or(false);
  inputs.alpha = seed.alpha.state();
  inputs.healthy = IsHealthy(seed);
  return inputs;
}

SeedTelemetry TelemetryOf(const Seed& seed, absl::Time now) {
  SeedTelemetry t;
  t.gradient_norm = seed.gradients.seed_norm;
  t.gradient_health = seed.gradients.health;
  t.has_vanishing = seed.gradients.has_vanishing;
  t.has_exploding = seed.gradients.has_exploding;
  t.stage = seed.stage.stage();
  t.accuracy = seed.metrics.current_accuracy;
  const bool early = t.stage == SeedStage::kDormant ||
                     t.stage == SeedStage::kGerminated ||
                     t.stage == SeedStage::kTraining;
  t.accuracy_delta = early ? 0 : seed.metrics.improvement_since_stage_start();
  t.epochs_in_stage = seed.metrics.epochs_in_stage;
  t.alpha = seed.alpha.state();
  t.time_to_target = seed.alpha.time_to_target();
  t.alpha_velocity = seed.alpha.velocity();
  t.algorithm = seed.algorithm;
  t.tempo = seed.tempo;
  if (t.stage == SeedStage::kBlending && t.epochs_in_stage > 0) {
    t.blending_velocity =
        seed.alpha.alpha() / static_cast<double>(t.epochs_in_stage);
  }
  t.epoch = seed.telemetry_epoch;
  t.max_epochs = seed.telemetry_max_epochs;
  t.captured_at = now;
  return t;
}

SlotReport ReportOf(const Seed& seed, absl::Time now) {
  SlotReport report;
  report.slot_id = seed.slot_id;
  report.seed_id = seed.seed_id;
  report.blueprint_id = seed.blueprint_id;
  report.blueprint_index = seed.blueprint_index;
  report.generation = seed.generation;
  report.stage = seed.stage.stage();
  report.previous_stage = seed.stage.previous();
  report.previous_epochs_in_stage = seed.stage.previous_epochs();
  report.metrics = seed.metrics;
  report.telemetry = TelemetryOf(seed, now);
  report.has_gate = seed.gate != nullptr;
  report.isolated = seed.isolated;
  report.trainable =
      seed.module != nullptr && AllTrainable(seed.module->parameters());
  report.is_healthy = IsHealthy(seed);
  report.is_improving = seed.metrics.improvement_since_stage_start() > 0;
  report.needs_attention = !report.is_healthy;
  report.ste_blocked_steps = seed.probe->blocked_steps();
  return report;
}

std::shared_ptr<ForwardPlan> MakeForwardPlan(const Seed& seed,
                                             const PlanTarget& target) {
  auto plan = std::make_shared<ForwardPlan>();
  plan->slot_id = seed.slot_id;
  plan->seed_id = seed.seed_id;
  plan->blueprint_id = seed.blueprint_id;
  plan->stage = seed.stage.stage();
  plan->generation = seed.generation;
  if (!IsActiveStage(plan->stage)) return plan;
  plan->algorithm = seed.algorithm;
  plan->isolated = seed.isolated;
  plan->copy_detached_input = seed.module->starts_with_normalization();
  plan->alpha_value = seed.alpha.alpha();
  plan->seed = seed.module;
  plan->gate = seed.gate;
  plan->parameters = seed.module->parameters();
  plan->probe = seed.probe;
  plan->trainability = seed.trainability;
  plan->ste_guard = target.ste_guard;
  plan->alpha_buffer = target.alpha_buffer;
  plan->frozen = !seed.frozen.empty();
  // Made here, where alpha changes, so that training never meets a tensor that
  // was born under inference mode.
  const c10::InferenceMode normal(false);
  plan->alpha =
      at::full({}, plan->alpha_value,
               at::TensorOptions().dtype(target.dtype).device(target.device));
  return plan;
}

}  // namespace esper::slot
