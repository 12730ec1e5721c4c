#ifndef ESPER_PROTO_CONFIG_SPLIT_MIX_H_
#define ESPER_PROTO_CONFIG_SPLIT_MIX_H_

#include <cstdint>

namespace esper::config {

// Number `position` of the SplitMix64 stream (Steele et al., 2014) that starts
// at `seed`: a random number as a function of where it is used. Thread-safe.
inline uint64_t SplitMix64(uint64_t seed, uint64_t position) {
  uint64_t x = seed + (position + 1) * 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

}  // namespace esper::config
#endif  // ESPER_PROTO_CONFIG_SPLIT_MIX_H_
