#include "core/slot/health_probe.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/all.h>
#include <ATen/ops/isfinite.h>

#include <utility>

namespace esper::slot {

void HealthProbe::ObserveOutput(const at::Tensor& output) {
  if (waiting_.load(std::memory_order_relaxed)) return;
  if (waiting_.exchange(true, std::memory_order_relaxed)) return;
  const at::NoGradGuard no_grad;
  at::Tensor finite = at::isfinite(output.detach()).all();
  absl::MutexLock lock(&mu_);
  output_finite_ = std::move(finite);
}

at::Tensor HealthProbe::TakeOutputFinite() {
  absl::MutexLock lock(&mu_);
  at::Tensor finite;
  std::swap(finite, output_finite_);
  // A look that is under way stays announced until it is taken.
  if (finite.defined()) waiting_.store(false, std::memory_order_relaxed);
  return finite;
}

bool HealthProbe::CountBlockedStep() {
  blocked_steps_.fetch_add(1, std::memory_order_relaxed);
  return !blocked_.load(std::memory_order_relaxed) && !blocked_.exchange(true);
}

}  // namespace esper::slot
