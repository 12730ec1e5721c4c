#include "core/slot/replay_guard.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "core/slot/forced_alpha.h"

namespace esper::slot {

ReplayGuard::ReplayGuard(std::vector<std::shared_ptr<const SeedSlot>> slots) {
  for (auto& slot : slots) {
    auto plan = slot->plan();
    captured_.push_back({std::move(slot), std::move(plan)});
  }
}

absl::Status ReplayGuard::CheckReplay() const {
  for (const Captured& captured : captured_) {
    const SeedSlot& slot = *captured.slot;
    if (FindForcedAlpha(*slot.force_alpha_claim()) != nullptr) {
      return ToStatus(ForceAlphaError(
          "FORCED_REPLAY", slot.slot_id(),
          absl::StrCat("A captured graph cannot see the alpha that is forced "
                       "on slot ",
                       slot.slot_id(), ".")));
    }
    const auto plan = slot.plan();
    if (plan->structure != captured.plan->structure) {
      ErrorDetail detail;
      detail.reason = "STALE_CAPTURE";
      detail.field = slot.slot_id();
      detail.hint = "Capture it again.";
      return MakeStatus(
          absl::StatusCode::kFailedPrecondition, detail,
          absl::StrCat("The graph was captured with slot ", slot.slot_id(),
                       " in ", StageName(captured.plan->stage),
                       "; its stage, operator or seed changed since (now ",
                       StageName(plan->stage), ")."));
    }
  }
  return absl::OkStatus();
}

}  // namespace esper::slot
