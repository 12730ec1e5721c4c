#ifndef ESPER_CORE_SLOT_SLOT_LIFECYCLE_EVENTS_H_
#define ESPER_CORE_SLOT_SLOT_LIFECYCLE_EVENTS_H_

#include <string>

#include "core/slot/events.h"
#include "core/slot/seed.h"

// Events about a seed as it is when they are made: before a change for the
// stage left and the values lost, after it for what was gained.
namespace esper::slot {

SlotEvent MakeGerminated(const Seed& seed);
SlotEvent MakeStageChanged(const Seed& before, SeedStage to);
SlotEvent MakeGateEvaluated(const Seed& seed, SeedStage target,
                            const GateResult& result);
SlotEvent MakeFossilized(const Seed& seed);
SlotEvent MakePruned(const Seed& before, const std::string& reason,
                     const std::string& initiator, bool automatic);
SlotEvent MakeAlgorithmChanged(const Seed& before, AlphaAlgorithm to);

}  // namespace esper::slot
#endif  // ESPER_CORE_SLOT_SLOT_LIFECYCLE_EVENTS_H_
