#ifndef ESPER_SERVER_CLOCK_H_
#define ESPER_SERVER_CLOCK_H_

#include <chrono>
#include <functional>

#include "absl/time/time.h"

namespace esper::server {

// Tells the time of leases. Never goes back; tests inject one they move.
using Clock = std::function<absl::Time()>;

// Time since an arbitrary origin, untouched by changes of the wall clock.
inline absl::Time SteadyNow() {
  return absl::UnixEpoch() +
         absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace esper::server
#endif  // ESPER_SERVER_CLOCK_H_
