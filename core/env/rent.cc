#include "core/env/rent.h"

#include <algorithm>

namespace esper::env {
namespace {

bool PaysRent(int64_t stage) {
  return stage == policy::kStageBlending || stage == policy::kStageHolding ||
         stage == policy::kStageFossilized;
}

}  // namespace

RentAndShock RentMeter::Measure(const std::vector<RentSlot>& slots,
                                int64_t host_params) {
  const auto host = static_cast<double>(host_params);
  const auto floor = static_cast<double>(options_.host_params_floor);
  RentAndShock result;
  for (const RentSlot& slot : slots) {
    const double alpha = slot.live ? slot.alpha : 0.0;
    const int64_t params = slot.live ? slot.seed_params + slot.gate_params : 0;
    if (slot.live && PaysRent(slot.stage)) {
      result.effective_seed_params += options_.base_slot_rent_ratio * host +
                                      alpha * static_cast<double>(params);
    }
    Memory& memory = memory_[slot.slot_id];
    if (memory.params > 0) {
      const double change = alpha - memory.alpha;
      result.alpha_delta_sq_sum += change * change *
                                   static_cast<double>(memory.params) /
                                   std::max(host, floor);
    }
    memory = {alpha, params};
  }
  return result;
}

double RentMeter::previous_alpha(const std::string& slot_id) const {
  const auto it = memory_.find(slot_id);
  return it == memory_.end() ? 0.0 : it->second.alpha;
}

int64_t RentMeter::previous_params(const std::string& slot_id) const {
  const auto it = memory_.find(slot_id);
  return it == memory_.end() ? 0 : it->second.params;
}

void RentMeter::Remember(const std::string& slot_id, double alpha,
                         int64_t params) {
  memory_[slot_id] = {alpha, params};
}

}  // namespace esper::env
