#ifndef ESPER_CORE_ENV_REPORT_VIEWS_H_
#define ESPER_CORE_ENV_REPORT_VIEWS_H_

#include <map>
#include <string>
#include <vector>

#include "core/env/episode_types.h"
#include "core/env/reward.h"
#include "core/policy/action_mask.h"
#include "core/policy/observation.h"
#include "core/policy/signal_tracker.h"
#include "core/slot/counterfactual.h"
#include "core/slot/report.h"

// A slot's report, as each reader of it wants it. Pure functions.
namespace esper::env {

// Reports of the occupied slots by slot id.
using SlotReports = std::map<std::string, slot::SlotReport>;

// The report of a slot; nullptr if the slot is empty.
const slot::SlotReport* FindReport(const SlotReports& reports,
                                   const std::string& slot_id);

// Whether the slot holds a seed: GERMINATED to FOSSILIZED.
bool IsLive(const slot::SlotReport& report);

policy::SlotObservations ToObservations(const SlotReports& reports);

// One entry for each of `slot_ids`; absent values are empty slots.
policy::SlotMaskStates ToMaskStates(const SlotReports& reports,
                                    const std::vector<std::string>& slot_ids);

// The live seeds, in the order of `slot_ids`.
std::vector<policy::SignalTracker::Seed> ToTrackerSeeds(
    const SlotReports& reports, const std::vector<std::string>& slot_ids);

SeedInfo ToSeedInfo(const slot::SlotReport& report);

// One entry for each of `slot_ids`; `measured` holds this step's contributions.
std::vector<SlotSnapshot> ToSnapshots(
    const SlotReports& reports, const std::vector<std::string>& slot_ids,
    const slot::CounterfactualResult& measured);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_REPORT_VIEWS_H_
