#include "core/slot/init_scope.h"

#include <ATen/CPUGeneratorImpl.h>

namespace esper::slot {
namespace {

std::mutex& InitMutex() {
  static auto& mutex = *new std::mutex;
  return mutex;
}

// The finaliser of splitmix64.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

}  // namespace

ScopedInitSeed::ScopedInitSeed(uint64_t seed)
    : lock_(InitMutex()), generator_(at::detail::getDefaultCPUGenerator()) {
  std::lock_guard<std::mutex> lock(generator_.mutex());
  saved_ = generator_.get_state();
  generator_.set_current_seed(seed);
}

ScopedInitSeed::~ScopedInitSeed() {
  std::lock_guard<std::mutex> lock(generator_.mutex());
  generator_.set_state(saved_);
}

uint64_t MixSeed(uint64_t seed, uint64_t a, uint64_t b) {
  return Mix(Mix(Mix(seed) ^ a) ^ b);
}

}  // namespace esper::slot
