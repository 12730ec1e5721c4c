#ifndef ESPER_CORE_ENV_DATA_H_
#define ESPER_CORE_ENV_DATA_H_

#include <cstdint>
#include <vector>

namespace esper::env {

// What a random stream is for. Streams of different purposes never share a
// number, so drawing more of one changes nothing in another. The values are
// part of every recorded seed: append, never renumber.
enum class StreamPurpose : uint32_t {
  kData = 1,  // Order of the training images.
  kInit = 2,  // First weights of the host and of seeds.
  kAugmentation = 3,
  kDropout = 4,
  kAction = 5,  // Of policies that act at random.
};

// Key of one counter-based stream, a mix of all three: a pure function, so any
// part of a run can be made again from its coordinates. `step` counts from 0
// within the purpose: the epoch for kData, the number of the seed for kInit.
uint64_t StreamKey(StreamPurpose purpose, uint64_t episode_seed, uint64_t step);

// The n-th number of the stream: uniform over all 64-bit values.
uint64_t StreamBits(uint64_t key, uint64_t n);

// Order in which an episode visits `count` >= 0 images in `epoch` (1-based): a
// uniform permutation of 0..count-1.
std::vector<int64_t> EpochOrder(int64_t count, uint64_t episode_seed,
                                int epoch);

}  // namespace esper::env
#endif  // ESPER_CORE_ENV_DATA_H_
