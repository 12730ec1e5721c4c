#include "core/slot/forward_plan.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/error.h"
#include "core/log.h"
#include "core/slot/blend.h"
#include "core/slot/forced_alpha.h"
#include "core/slot/recording.h"

namespace esper::slot {
namespace {

// What the seed reads.
at::Tensor SeedInput(const ForwardPlan& plan, const at::Tensor& host) {
  if (!plan.isolated) return host;
  const at::Tensor detached = host.detach();
  // The framework's group-norm backward crashes on a channels_last input
  // without gradient (see SeedModule::starts_with_normalization).
  return plan.copy_detached_input ? detached.contiguous() : detached;
}

void CheckOutput(const ForwardPlan& plan, const at::Tensor& host,
                 const at::Tensor& seed) {
  if (seed.defined() && seed.sizes() == host.sizes()) return;
  throw ShapeError(
      absl::StrCat("output of seed ", plan.seed_id),
      absl::StrCat("[", absl::StrJoin(host.sizes(), ", "), "]"),
      seed.defined() ? absl::StrCat("[", absl::StrJoin(seed.sizes(), ", "), "]")
                     : "an undefined tensor");
}

// Notices a seed that is training but cannot learn. Reads metadata only.
void CheckTrainable(const ForwardPlan& plan, const at::Tensor& seed) {
  if (plan.ste_guard == SteGuard::kOff || plan.parameters.empty()) return;
  const int64_t total = plan.parameters.size();
  const int64_t frozen = std::count_if(
      plan.parameters.begin(), plan.parameters.end(),
      [](const at::Tensor& parameter) { return !parameter.requires_grad(); });
  if (frozen < total && seed.requires_grad()) {
    if (frozen > 0 && plan.probe->FirstPartialFreeze()) {
      spdlog::info(
          "Seed {} ({}) in slot {} trains with {} of {} parameter tensors "
          "frozen.",
          plan.seed_id, plan.blueprint_id, plan.slot_id, frozen, total);
    }
    return;
  }
  const bool first = plan.probe->CountBlockedStep();
  const std::string message =
      absl::StrCat("Seed ", plan.seed_id, " (", plan.blueprint_id, ") in slot ",
                   plan.slot_id, " is TRAINING but gets no gradient: ", frozen,
                   " of ", total, " parameter tensors are frozen.");
  if (plan.ste_guard == SteGuard::kThrow) {
    ErrorDetail detail;
    detail.reason = "FROZEN_SEED";
    detail.field = plan.slot_id;
    detail.hint = "Let the seed's parameters require gradients.";
    throw GradientContractError(detail, message);
  }
  if (first) spdlog::warn("{}", message);
}

// A forced alpha is for one seed; an emptied slot has none to force.
void CheckForcedSeed(const ForwardPlan& plan, const SlotView& view) {
  if (!view.forced_alpha || plan.probe == nullptr ||
      plan.probe == view.forced_seed) {
    return;
  }
  throw ForceAlphaError(
      "STALE_SEED", plan.slot_id,
      absl::StrCat("The alpha of slot ", plan.slot_id,
                   " was forced for another seed than ", plan.seed_id,
                   ", which it holds by now; end that scope."));
}

// The result is the host's features whatever the seed says.
bool IsOff(const ForwardPlan& plan, const SlotView& view, bool capturing) {
  if (view.forced_alpha) return *view.forced_alpha == 0;
  if (view.alpha_override.defined()) return view.override_is_zero;
  if (plan.straight_through()) return true;
  // A replay may find another alpha.
  return plan.alpha_value == 0 && !capturing;
}

// The blend weight of this forward.
at::Tensor Alpha(const ForwardPlan& plan, const at::Tensor& host,
                 const SlotView& view, bool capturing) {
  if (view.alpha_override.defined()) return view.alpha_override;
  if (view.forced_alpha) {
    return at::full({}, *view.forced_alpha, host.options());
  }
  if (capturing) return plan.alpha_buffer;
  if (plan.alpha.scalar_type() != host.scalar_type() ||
      plan.alpha.device() != host.device()) {
    // From the exact number, not from its rounding to another dtype.
    return at::full({}, plan.alpha_value, host.options());
  }
  return plan.alpha;
}

at::Tensor Blend(const ForwardPlan& plan, const at::Tensor& host,
                 const at::Tensor& seed, const at::Tensor& input,
                 const at::Tensor& alpha) {
  if ((plan.algorithm == AlphaAlgorithm::kGate) != (plan.gate != nullptr)) {
    ErrorDetail detail;
    detail.reason = "GATE_MISMATCH";
    detail.field = plan.slot_id;
    throw Error(absl::StatusCode::kFailedPrecondition, detail,
                absl::StrCat("Slot ", plan.slot_id, " blends by ",
                             AlphaAlgorithmName(plan.algorithm),
                             plan.gate ? " but has a gate network."
                                       : " but has no gate network."));
  }
  switch (plan.algorithm) {
    case AlphaAlgorithm::kAdd:
      return plan.isolated ? BlendWithIsolation(host, seed, alpha)
                           : BlendAdd(host, seed, alpha);
    case AlphaAlgorithm::kMultiply:
      return BlendMultiply(host, seed, alpha, input);
    case AlphaAlgorithm::kGate:
      return BlendGate(host, seed, alpha, plan.gate->forward(input));
  }
  throw Error(absl::StatusCode::kInternal, ErrorDetail{},
              absl::StrCat("Slot ", plan.slot_id, " has no blend operator."));
}

}  // namespace

bool SameStructure(const ForwardPlan& a, const ForwardPlan& b) {
  return a.stage == b.stage && a.algorithm == b.algorithm &&
         a.isolated == b.isolated && a.generation == b.generation &&
         a.seed == b.seed && a.gate == b.gate && a.frozen == b.frozen &&
         a.straight_through() == b.straight_through() &&
         a.alpha_buffer.is_same(b.alpha_buffer);
}

bool PassesThrough(const ForwardPlan& plan, const SlotView& view) {
  CheckForcedSeed(plan, view);
  if (!IsActiveStage(plan.stage)) return true;
  return !at::GradMode::is_enabled() && IsOff(plan, view, IsCapturing());
}

at::Tensor RunForwardPlan(const ForwardPlan& plan, const at::Tensor& host,
                          const SlotView& view, bool training) {
  if (PassesThrough(plan, view)) return host;
  const bool overridden =
      view.alpha_override.defined() || view.forced_alpha.has_value();
  const bool gradients = at::GradMode::is_enabled();
  const bool capturing = IsCapturing();
  // The whole of the graph sees one and the same set of trainable parameters.
  std::optional<absl::ReaderMutexLock> lock;
  if (gradients) lock.emplace(plan.trainability.get());

  const at::Tensor input = SeedInput(plan, host);
  const at::Tensor seed = plan.seed->forward(input);
  CheckOutput(plan, host, seed);
  const bool learning = gradients && training && !capturing;
  if (learning) plan.probe->ObserveOutput(seed);

  if (!overridden && plan.straight_through()) {
    if (learning) CheckTrainable(plan, seed);
    return SteForward(host, seed);
  }
  return Blend(plan, host, seed, input, Alpha(plan, host, view, capturing));
}

}  // namespace esper::slot
