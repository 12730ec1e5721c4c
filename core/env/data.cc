#include "core/env/data.h"

#include <numeric>
#include <utility>

namespace esper::env {
namespace {

// Finaliser of SplitMix64: a bijection whose output bits each depend on all
// input bits.
uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

constexpr uint64_t kGolden = 0x9e3779b97f4a7c15ULL;

}  // namespace

uint64_t StreamKey(StreamPurpose purpose, uint64_t episode_seed,
                   uint64_t step) {
  uint64_t key = Mix(episode_seed + kGolden);
  key = Mix(key ^ (static_cast<uint64_t>(purpose) * kGolden));
  return Mix(key + (step + 1) * kGolden);
}

uint64_t StreamBits(uint64_t key, uint64_t n) {
  return Mix(key + (n + 1) * kGolden);
}

std::vector<int64_t> EpochOrder(int64_t count, uint64_t episode_seed,
                                int epoch) {
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  const uint64_t key = StreamKey(StreamPurpose::kData, episode_seed,
                                 static_cast<uint64_t>(epoch));
  for (int64_t i = count - 1; i > 0; --i) {
    // High half of a 128-bit product: uniform over 0..i up to 2^-64 * i.
    const unsigned __int128 product =
        static_cast<unsigned __int128>(StreamBits(key, i)) * (i + 1);
    std::swap(order[i], order[static_cast<int64_t>(product >> 64)]);
  }
  return order;
}

}  // namespace esper::env
