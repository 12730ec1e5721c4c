#ifndef ESPER_CORE_ENV_RENT_H_
#define ESPER_CORE_ENV_RENT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/policy/actions.h"

namespace esper::env {

// One slot before the action.
struct RentSlot {
  std::string slot_id;
  bool live = false;  // Holds a live seed; otherwise alpha and size count as 0.
  int64_t stage = policy::kStageUnknown;
  double alpha = 0;
  int64_t seed_params = 0;  // Trainable or not.
  int64_t gate_params = 0;
};

struct RentAndShock {
  // Parameters that rent is due for: a share of the host per blended seed, plus
  // each seed's own by its alpha.
  double effective_seed_params = 0;
  // Squared alpha changes since the last step, weighted by seed size.
  double alpha_delta_sq_sum = 0;
};

// Remembers each slot's last alpha and size, for the shock of a sudden change.
// Not thread safe; a value that belongs to one episode.
class RentMeter {
 public:
  struct Options {
    double base_slot_rent_ratio = 0.0039;  // Of the host, per blended seed.
    int64_t host_params_floor = 200;       // At least 1.
  };

  RentMeter() = default;
  explicit RentMeter(const Options& options) : options_(options) {}

  // Measures one step and replaces the memory of the slots given.
  RentAndShock Measure(const std::vector<RentSlot>& slots, int64_t host_params);

  void Reset() { memory_.clear(); }

  // What is remembered; 0 for a slot never seen.
  double previous_alpha(const std::string& slot_id) const;
  int64_t previous_params(const std::string& slot_id) const;
  // For restoring a recorded state.
  void Remember(const std::string& slot_id, double alpha, int64_t params);

 private:
  struct Memory {
    double alpha = 0;
    int64_t params = 0;
  };

  Options options_;
  std::map<std::string, Memory> memory_;
};

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_RENT_H_
