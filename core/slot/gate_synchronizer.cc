#include "core/slot/gate_synchronizer.h"

namespace esper::slot {

const char* DecisionName(Decision decision) {
  switch (decision) {
    case Decision::kGerminate:
      return "Germinate";
    case Decision::kAdvance:
      return "Advance";
    case Decision::kFossilize:
      return "Fossilize";
    case Decision::kTick:
      return "Tick";
    case Decision::kSetAlpha:
      return "SetAlpha";
    case Decision::kSetAlphaTarget:
      return "SetAlphaTarget";
    case Decision::kSchedulePrune:
      return "SchedulePrune";
    case Decision::kPrune:
      return "Prune";
  }
  return "?";
}

}  // namespace esper::slot
