#include "core/slot/forward_plan.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/error.h"
#include "core/log.h"
#include "core/slot/blend.h"

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

at::Tensor RunForwardPlan(const ForwardPlan& plan, const at::Tensor& host,
                          const SlotView& view, bool training) {
  if (!IsActiveStage(plan.stage)) return host;
  const bool overridden = view.alpha_override.defined();
  const bool gradients = at::GradMode::is_enabled();
  const bool off = overridden ? view.override_is_zero : plan.alpha_value == 0;
  if (off && !gradients) return host;

  const at::Tensor input = SeedInput(plan, host);
  const at::Tensor seed = plan.seed->forward(input);
  CheckOutput(plan, host, seed);
  const bool learning = gradients && training;
  if (learning) plan.probe->ObserveOutput(seed);

  if (!overridden && plan.stage == SeedStage::kTraining &&
      plan.alpha_value == 0) {
    if (learning) CheckTrainable(plan, seed);
    return SteForward(host, seed);
  }
  at::Tensor alpha = overridden ? view.alpha_override : plan.alpha;
  if (!overridden && (alpha.scalar_type() != host.scalar_type() ||
                      alpha.device() != host.device())) {
    // From the exact number, not from its rounding to another dtype.
    alpha = at::full({}, plan.alpha_value, host.options());
  }
  return Blend(plan, host, seed, input, alpha);
}

}  // namespace esper::slot
