#ifndef ESPER_TESTS_CORE_SLOT_TEST_SEEDS_H_
#define ESPER_TESTS_CORE_SLOT_TEST_SEEDS_H_

#include <cstdint>
#include <memory>
#include <string>

#include "core/slot/blueprint.h"
#include "core/slot/recording.h"
#include "core/slot/seed_slot.h"
#include "core/slot/slot_lifecycle.h"

// Seeds whose outputs and gradients have closed forms, for both topologies.
namespace esper::testing {

// "norm": y = x + tanh(q) (w x + b), 2C + 1 parameters, w drawn from the
//     default generator, q = 0.5; declares option "scale" (a factor on w).
// "conv": a 1x1 convolution (cnn) without bias, default initialisation.
// "noop": y = x, no parameters, returns its input.
// "nan":  y = x + NaN w, C parameters.
// "crop": drops a channel: the wrong shape.
// "first_norm": group norm first, as its declaration says; 2C parameters.
const slot::BlueprintRegistry& TestBlueprints();

// A slot in training mode; dies on an error.
std::shared_ptr<slot::SeedSlot> MakeSlot(slot::SeedSlot::Options options);
std::shared_ptr<slot::SeedSlot> MakeSlot(
    slot::Topology topology = slot::Topology::kCnn, int64_t channels = 4);

// Lifecycle over TestBlueprints, permissive unless given otherwise.
slot::SlotLifecycle MakeLifecycle(slot::SlotLifecycle::Options options = {});

// A gradient reading that every gate accepts.
slot::GradientReading HealthyReading();

// Plants `request` and brings it to `stage` through ordinary calls; dies if
// that does not work. HOLDING and later imply alpha 1.
void GrowTo(const slot::SlotLifecycle& lifecycle, slot::SeedSlot& slot,
            slot::SeedStage stage, slot::GerminateRequest request = {});

// While it lives, every thread's stream counts as capturing a graph.
class ScopedCapture {
 public:
  ScopedCapture() {
    slot::ExchangeCaptureProbe([] { return true; });
  }
  ~ScopedCapture() { slot::ExchangeCaptureProbe(nullptr); }

  ScopedCapture(const ScopedCapture&) = delete;
  ScopedCapture& operator=(const ScopedCapture&) = delete;
};

}  // namespace esper::testing
#endif  // ESPER_TESTS_CORE_SLOT_TEST_SEEDS_H_
