#include "core/slot/force_alpha.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "core/error.h"

namespace esper::slot {

ScopedForceAlpha::ScopedForceAlpha(std::string slot_id,
                                   std::shared_ptr<ForcedAlpha> forced)
    : slot_id_(std::move(slot_id)), forced_(std::move(forced)) {}

ScopedForceAlpha::~ScopedForceAlpha() {
  if (forced_ != nullptr) CloseForcedAlpha(*forced_, slot_id_);
}

absl::StatusOr<ScopedForceAlpha> ForceAlpha(const SeedSlot& slot,
                                            double alpha) {
  const std::string& id = slot.slot_id();
  if (!(alpha >= 0 && alpha <= 1)) {  // NaN as well.
    return ToStatus(
        ForceAlphaError("BAD_ALPHA", id,
                        absl::StrCat("A forced alpha must be in [0, 1], got ",
                                     alpha, " for slot ", id, "."),
                        absl::StatusCode::kInvalidArgument));
  }
  try {
    CheckForceAlphaAllowed(id, slot.is_training());
  } catch (const Error& error) {
    return ToStatus(error);
  }
  const auto& claim = slot.force_alpha_claim();
  if (claim->taken.exchange(true, std::memory_order_acq_rel)) {
    return ToStatus(ForceAlphaError(
        "FORCE_ALPHA_OPEN", id,
        absl::StrCat("Slot ", id,
                     " already has its alpha forced, by an enclosing scope or "
                     "by another thread; scopes do not nest.")));
  }
  auto forced = std::make_shared<ForcedAlpha>();
  forced->claim = claim;
  forced->value = alpha;
  forced->seed = slot.plan()->probe;
  forced->thread = std::this_thread::get_id();
  RegisterForcedAlpha(forced);
  return ScopedForceAlpha(id, std::move(forced));
}

}  // namespace esper::slot
