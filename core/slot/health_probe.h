#ifndef ESPER_CORE_SLOT_HEALTH_PROBE_H_
#define ESPER_CORE_SLOT_HEALTH_PROBE_H_

#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace esper::slot {

// What forward passes leave behind for the health of one seed: whether its
// output was finite, and how often it trained while frozen. Shared by all
// forward plans of a seed generation.
//
// Thread safety: any thread may call any method.
class HealthProbe {
 public:
  // A restored seed goes on counting; what it has warned of before, it warns
  // of again.
  explicit HealthProbe(int64_t blocked_steps = 0)
      : blocked_steps_(blocked_steps) {}

  // Looks at `output` if no earlier look is waiting to be taken; otherwise
  // costs one atomic read. Reads no device data on the host.
  void ObserveOutput(const at::Tensor& output);

  // The waiting look: bool 0-dim, device, detached; undefined if none. The
  // next ObserveOutput looks again.
  at::Tensor TakeOutputFinite();

  // Counts a training step whose seed could not get a gradient; true if it is
  // the first that this probe sees.
  bool CountBlockedStep();
  int64_t blocked_steps() const {
    return blocked_steps_.load(std::memory_order_relaxed);
  }

  // True on the first call only: guards the note about partial freezing.
  bool FirstPartialFreeze() { return !partial_.exchange(true); }

 private:
  std::atomic<bool> waiting_{false};
  std::atomic<int64_t> blocked_steps_;
  std::atomic<bool> blocked_{false};
  std::atomic<bool> partial_{false};
  absl::Mutex mu_;
  at::Tensor output_finite_ ABSL_GUARDED_BY(mu_);
};

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_HEALTH_PROBE_H_
