#ifndef ESPER_CORE_POLICY_COUNTER_NOISE_H_
#define ESPER_CORE_POLICY_COUNTER_NOISE_H_

#include <array>
#include <cstdint>
#include <vector>

#include "ATen/core/Tensor.h"
#include "core/policy/head_layout.h"

// Sampling noise as a pure function of where it is used, so that an action
// depends on its episode, step and seed, and never on who shares its batch.
namespace esper::policy {

// Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2,
// 3": four 32-bit words from a 128-bit counter and a 64-bit key.
std::array<uint32_t, 4> Philox4x32(const std::array<uint32_t, 4>& counter,
                                   const std::array<uint32_t, 2>& key);

// Which draw of which episode.
struct NoiseKey {
  uint64_t episode_seed = 0;
  uint64_t step = 0;
  // Takes the most likely choice of every head; draws nothing.
  bool deterministic = false;
};

// Exp(1) noise of one entry: -log((w + 1/2) 2^-24), w the upper 24 bits of word
// entry % 4 of Philox with key = seed (low word first) and counter = (step low,
// step high, head, entry / 4). Positive and finite.
float CounterNoise(uint64_t episode_seed, uint64_t step, uint32_t head,
                   uint32_t entry);

// The first `count` entries of a head.
void CounterNoise(const NoiseKey& key, uint32_t head, int64_t count,
                  float* noise);

// The same for whole rows: float32 [B, A] in the packed layout, B the number of
// keys. Deterministic rows are 1.
at::Tensor CounterNoise(const std::vector<NoiseKey>& keys,
                        const HeadLayout& layout);

// Standard normal noise of one entry by the transform of Box and Muller, "A
// note on the generation of random normal deviates": of the words as above, the
// even one of a pair gives the radius sqrt(-2 log u), the odd one the angle
// 2 pi u, u = (w + 1/2) 2^-24; even entries take the cosine, odd ones the sine.
// Its size is at most 5.9.
float CounterNormal(uint64_t episode_seed, uint64_t step, uint32_t head,
                    uint32_t entry);

// The first `count` entries of a head.
void CounterNormals(const NoiseKey& key, uint32_t head, int64_t count,
                    float* noise);

// The same for whole rows: float32 [B, C] of the Gaussian heads. Deterministic
// rows are 0.
at::Tensor CounterNormals(const std::vector<NoiseKey>& keys,
                          const HeadLayout& layout);

}  // namespace esper::policy
#endif  // ESPER_CORE_POLICY_COUNTER_NOISE_H_
