#include "core/slot/seed_slot.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/ScalarType.h>

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "core/error.h"
#include "core/slot/slot_id.h"

namespace esper::slot {
namespace {

absl::Status Empty(const std::string& slot_id) {
  return absl::FailedPreconditionError(
      absl::StrCat("Slot ", slot_id, " is empty."));
}

std::string NotFloating(const std::string& slot_id, at::ScalarType dtype) {
  return absl::StrCat("Slot ", slot_id, " needs a floating dtype, got ",
                      c10::toString(dtype), ".");
}

at::Tensor MakeAlphaBuffer(at::Device device, double alpha) {
  const c10::InferenceMode normal(false);
  return at::full({}, alpha,
                  at::TensorOptions().dtype(at::kDouble).device(device));
}

std::shared_ptr<ForwardPlan> EmptyPlan(const std::string& slot_id) {
  auto plan = std::make_shared<ForwardPlan>();
  plan->slot_id = slot_id;
  plan->stage = SeedStage::kDormant;
  return plan;
}

}  // namespace

absl::StatusOr<std::shared_ptr<SeedSlot>> SeedSlot::Create(
    const Options& options) {
  const auto id = SlotId::Parse(options.slot_id);
  if (!id.ok()) return id.status();
  if (options.channels <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("Slot ", options.slot_id,
                                                   " needs channels > 0, got ",
                                                   options.channels, "."));
  }
  if (!c10::isFloatingType(options.dtype)) {
    return absl::InvalidArgumentError(
        NotFloating(options.slot_id, options.dtype));
  }
  return std::shared_ptr<SeedSlot>(new SeedSlot(options));
}

SeedSlot::SeedSlot(const Options& options)
    : options_(options),
      force_alpha_claim_(std::make_shared<ForceAlphaClaim>()),
      alpha_buffer_(MakeAlphaBuffer(options.device, /*alpha=*/0)),
      plan_(EmptyPlan(options.slot_id)) {}

at::Tensor SeedSlot::forward(const at::Tensor& host) const {
  return forward(host, SlotView{});
}

at::Tensor SeedSlot::forward(const at::Tensor& host,
                             const SlotView& view) const {
  const std::shared_ptr<const ForwardPlan> now = plan();
  return RunForwardPlan(*now, host, Resolve(view), is_training());
}

SlotView SeedSlot::Resolve(const SlotView& view) const {
  if (view.resolved) return view;
  SlotView resolved = view;
  resolved.resolved = true;
  const auto forced = FindForcedAlpha(*force_alpha_claim_);
  if (forced == nullptr) return resolved;
  CheckForceAlphaAllowed(slot_id(), is_training());
  if (view.alpha_override.defined()) {
    throw ForceAlphaError(
        "OVERRIDE_CONFLICT", slot_id(),
        absl::StrCat("Slot ", slot_id(),
                     " has its alpha forced by a scope of this thread and "
                     "overridden by this call; only one can hold."));
  }
  resolved.forced_alpha = forced->value;
  resolved.forced_seed = forced->seed;
  return resolved;
}

void SeedSlot::to(at::Device device, at::ScalarType dtype, bool non_blocking) {
  CheckDtype(dtype);
  Module::to(device, dtype, non_blocking);
  Rehouse(device, dtype);
}

void SeedSlot::to(at::ScalarType dtype, bool non_blocking) {
  CheckDtype(dtype);
  Module::to(dtype, non_blocking);
  Rehouse(options_.device, dtype);
}

void SeedSlot::to(at::Device device, bool non_blocking) {
  Module::to(device, non_blocking);
  Rehouse(device, options_.dtype);
}

void SeedSlot::CheckDtype(at::ScalarType dtype) const {
  if (c10::isFloatingType(dtype)) return;
  throw InvalidArgumentError({.reason = "BAD_SLOT_DTYPE", .field = slot_id()},
                             NotFloating(slot_id(), dtype));
}

void SeedSlot::Rehouse(at::Device device, at::ScalarType dtype) {
  absl::MutexLock lock(&mu_);
  if (device != options_.device || dtype != options_.dtype) {
    // Another buffer is another structure: graphs that were captured before
    // point to parameters that are gone.
    alpha_buffer_ = MakeAlphaBuffer(device, plan()->alpha_value);
    if (seed_) seed_->probe->TakeOutputFinite();
    monitor_.Clear();
  }
  options_.device = device;
  options_.dtype = dtype;
  PublishLocked();
}

std::shared_ptr<const ForwardPlan> SeedSlot::plan() const {
  return std::atomic_load(&plan_);
}

std::optional<SlotReport> SeedSlot::Report() const {
  absl::MutexLock lock(&mu_);
  if (!seed_) return std::nullopt;
  return ReportOf(*seed_, absl::Now());
}

SeedStage SeedSlot::stage() const {
  absl::MutexLock lock(&mu_);
  return seed_ ? seed_->stage.stage() : SeedStage::kDormant;
}

double SeedSlot::alpha() const {
  absl::MutexLock lock(&mu_);
  return seed_ ? seed_->alpha.alpha() : 0;
}

bool SeedSlot::empty() const {
  absl::MutexLock lock(&mu_);
  return !seed_.has_value();
}

std::vector<at::Tensor> SeedSlot::SeedParameters() const {
  absl::MutexLock lock(&mu_);
  if (!seed_) return {};
  return slot::SeedParameters(*seed_);
}

ElementCounts SeedSlot::CountElements() const {
  absl::MutexLock lock(&mu_);
  ElementCounts counts;
  if (!seed_) return counts;
  for (const at::Tensor& parameter : slot::SeedParameters(*seed_)) {
    counts.owned += parameter.numel();
    if (parameter.requires_grad()) counts.trainable += parameter.numel();
  }
  return counts;
}

absl::Status SeedSlot::RecordAccuracy(double accuracy) {
  absl::MutexLock lock(&mu_);
  if (!seed_) return Empty(slot_id());
  if (IsFailureStage(seed_->stage.stage())) {
    return absl::FailedPreconditionError(absl::StrCat(
        "Slot ", slot_id(), " is cooling down; no seed earns an accuracy."));
  }
  return seed_->metrics.RecordAccuracy(accuracy);
}

absl::Status SeedSlot::RecordContribution(double value) {
  absl::MutexLock lock(&mu_);
  if (!seed_) return Empty(slot_id());
  if (IsFailureStage(seed_->stage.stage())) {
    return absl::FailedPreconditionError(absl::StrCat(
        "Slot ", slot_id(), " is cooling down; no seed contributes."));
  }
  return seed_->metrics.RecordContribution(value);
}

absl::Status SeedSlot::RecordInteractions(const InteractionReadings& readings) {
  if (!std::isfinite(readings.interaction_sum) ||
      !std::isfinite(readings.boost_received) ||
      !std::isfinite(readings.upstream_alpha_sum) ||
      !std::isfinite(readings.downstream_alpha_sum)) {
    return absl::InvalidArgumentError("Interactions must be finite.");
  }
  absl::MutexLock lock(&mu_);
  if (!seed_) return Empty(slot_id());
  SeedMetrics& metrics = seed_->metrics;
  metrics.interaction_sum = readings.interaction_sum;
  metrics.boost_received = readings.boost_received;
  metrics.upstream_alpha_sum = readings.upstream_alpha_sum;
  metrics.downstream_alpha_sum = readings.downstream_alpha_sum;
  return absl::OkStatus();
}

absl::Status SeedSlot::RecordGradients(const GradientReading& reading) {
  absl::MutexLock lock(&mu_);
  if (!seed_) return Empty(slot_id());
  ApplyGradientReading(*seed_, reading);
  return absl::OkStatus();
}

bool SeedSlot::CaptureGradients(const GradientSample& host) {
  absl::MutexLock lock(&mu_);
  if (!seed_ || !seed_->frozen.empty()) return false;
  const SeedStage stage = seed_->stage.stage();
  if (stage != SeedStage::kTraining && stage != SeedStage::kBlending &&
      stage != SeedStage::kHolding) {
    return false;
  }
  monitor_.Capture(SampleGradients(slot::SeedParameters(*seed_)), host);
  return true;
}

bool SeedSlot::FinalizeGradients() {
  absl::MutexLock lock(&mu_);
  if (!seed_) return false;
  if (const at::Tensor finite = seed_->probe->TakeOutputFinite();
      finite.defined()) {
    monitor_.CaptureOutput(finite);
  }
  const std::optional<GradientReading> reading = monitor_.Finalize();
  if (!reading) return false;
  ApplyGradientReading(*seed_, *reading);
  return true;
}

absl::Status SeedSlot::SyncTelemetry(int64_t epoch, int64_t max_epochs) {
  absl::MutexLock lock(&mu_);
  if (!seed_) return Empty(slot_id());
  seed_->telemetry_epoch = epoch;
  seed_->telemetry_max_epochs = max_epochs;
  return absl::OkStatus();
}

std::optional<std::string> SeedSlot::TakeAutoPrune() {
  absl::MutexLock lock(&mu_);
  return std::exchange(auto_prune_, std::nullopt);
}

void SeedSlot::CommitLocked(std::optional<Seed> seed) {
  const auto module = [](const std::optional<Seed>& s) {
    return s ? std::shared_ptr<torch::nn::Module>(s->module) : nullptr;
  };
  const auto gate = [](const std::optional<Seed>& s) {
    return s ? std::shared_ptr<torch::nn::Module>(s->gate) : nullptr;
  };
  const auto replace = [this](const char* name,
                              const std::shared_ptr<torch::nn::Module>& before,
                              const std::shared_ptr<torch::nn::Module>& after) {
    if (before == after) return false;
    if (before) unregister_module(name);
    if (after) register_module(name, after);
    return true;
  };
  bool changed = replace("seed", module(seed_), module(seed));
  changed |= replace("gate", gate(seed_), gate(seed));
  if (!seed || !seed_ || seed->generation != seed_->generation ||
      IsFailureStage(seed->stage.stage())) {
    monitor_.Clear();
  }
  seed_ = std::move(seed);
  if (changed) parameter_generation_.fetch_add(1, std::memory_order_acq_rel);
  PublishLocked();
}

void SeedSlot::PublishLocked() {
  std::shared_ptr<ForwardPlan> plan;
  if (seed_) {
    PlanTarget target;
    target.device = options_.device;
    target.dtype = options_.dtype;
    target.ste_guard = options_.ste_guard;
    target.alpha_buffer = alpha_buffer_;
    plan = MakeForwardPlan(*seed_, target);
  } else {
    plan = EmptyPlan(options_.slot_id);
  }
  const std::shared_ptr<const ForwardPlan> before = this->plan();
  plan->structure = before->structure + !SameStructure(*before, *plan);
  if (plan->alpha_value != before->alpha_value) {
    const at::NoGradGuard no_grad;
    alpha_buffer_.fill_(plan->alpha_value);
  }
  std::atomic_store(&plan_,
                    std::shared_ptr<const ForwardPlan>(std::move(plan)));
}

}  // namespace esper::slot
