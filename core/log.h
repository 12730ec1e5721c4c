#ifndef ESPER_CORE_LOG_H_
#define ESPER_CORE_LOG_H_

#include <atomic>

#include "spdlog/spdlog.h"

namespace esper {

// True on the first call with this flag, false on every later one, from any
// thread. Guards a message that must appear once per object rather than once
// per call:
//
//   if (FirstTime(warned_)) spdlog::warn("head {} is frozen", name);
//
// Reset the flag to false to arm the message again.
inline bool FirstTime(std::atomic<bool>& flag) {
  return !flag.exchange(true, std::memory_order_relaxed);
}

}  // namespace esper
#endif  // ESPER_CORE_LOG_H_
