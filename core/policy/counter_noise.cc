#include "core/policy/counter_noise.h"

#include <cmath>

#include "ATen/ops/empty.h"
#include "ATen/ops/zeros.h"

namespace esper::policy {
namespace {

constexpr double kTwoPi = 6.283185307179586;
constexpr int kRounds = 10;
constexpr uint32_t kMultiplier0 = 0xD2511F53u;
constexpr uint32_t kMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kWeyl0 = 0x9E3779B9u;
constexpr uint32_t kWeyl1 = 0xBB67AE85u;

uint32_t Low(uint64_t x) { return static_cast<uint32_t>(x); }
uint32_t High(uint64_t x) { return static_cast<uint32_t>(x >> 32); }

// Four consecutive entries of a head, from entry 4 * block on.
std::array<uint32_t, 4> Words(uint64_t episode_seed, uint64_t step,
                              uint32_t head, uint32_t block) {
  return Philox4x32({Low(step), High(step), head, block},
                    {Low(episode_seed), High(episode_seed)});
}

// The middle of the word's cell of [0, 1), so that neither end can occur.
double Uniform(uint32_t word) {
  return (static_cast<double>(word >> 8) + 0.5) * 0x1p-24;
}

float Exponential(uint32_t word) {
  return static_cast<float>(-std::log(Uniform(word)));
}

// Entry `j` of a block of four.
float Normal(const std::array<uint32_t, 4>& words, uint32_t j) {
  const double radius = std::sqrt(-2 * std::log(Uniform(words[j & ~1u])));
  const double angle = kTwoPi * Uniform(words[j | 1u]);
  return static_cast<float>(radius *
                            (j % 2 == 0 ? std::cos(angle) : std::sin(angle)));
}

}  // namespace

std::array<uint32_t, 4> Philox4x32(const std::array<uint32_t, 4>& counter,
                                   const std::array<uint32_t, 2>& key) {
  std::array<uint32_t, 4> x = counter;
  uint32_t k0 = key[0];
  uint32_t k1 = key[1];
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(kMultiplier0) * x[0];
    const uint64_t p1 = static_cast<uint64_t>(kMultiplier1) * x[2];
    x = {High(p1) ^ x[1] ^ k0, Low(p1), High(p0) ^ x[3] ^ k1, Low(p0)};
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  return x;
}

float CounterNoise(uint64_t episode_seed, uint64_t step, uint32_t head,
                   uint32_t entry) {
  return Exponential(Words(episode_seed, step, head, entry / 4)[entry % 4]);
}

void CounterNoise(const NoiseKey& key, uint32_t head, int64_t count,
                  float* noise) {
  std::array<uint32_t, 4> words = {};
  for (int64_t j = 0; j < count; ++j) {
    if (j % 4 == 0) {
      words =
          Words(key.episode_seed, key.step, head, static_cast<uint32_t>(j / 4));
    }
    noise[j] = key.deterministic ? 1.0f : Exponential(words[j % 4]);
  }
}

at::Tensor CounterNoise(const std::vector<NoiseKey>& keys,
                        const HeadLayout& layout) {
  at::Tensor noise = at::empty(
      {static_cast<int64_t>(keys.size()), layout.width()}, at::kFloat);
  float* row = noise.mutable_data_ptr<float>();
  for (const NoiseKey& key : keys) {
    for (int64_t head = 0; head < layout.num_heads(); ++head) {
      CounterNoise(key, static_cast<uint32_t>(head), layout.size(head),
                   row + layout.offset(head));
    }
    row += layout.width();
  }
  return noise;
}

float CounterNormal(uint64_t episode_seed, uint64_t step, uint32_t head,
                    uint32_t entry) {
  return Normal(Words(episode_seed, step, head, entry / 4), entry % 4);
}

void CounterNormals(const NoiseKey& key, uint32_t head, int64_t count,
                    float* noise) {
  std::array<uint32_t, 4> words = {};
  for (int64_t j = 0; j < count; ++j) {
    if (j % 4 == 0) {
      words =
          Words(key.episode_seed, key.step, head, static_cast<uint32_t>(j / 4));
    }
    noise[j] =
        key.deterministic ? 0.0f : Normal(words, static_cast<uint32_t>(j % 4));
  }
}

at::Tensor CounterNormals(const std::vector<NoiseKey>& keys,
                          const HeadLayout& layout) {
  at::Tensor noise =
      at::zeros({static_cast<int64_t>(keys.size()), layout.continuous_width()},
                at::kFloat);
  float* row = noise.mutable_data_ptr<float>();
  for (const NoiseKey& key : keys) {
    for (const int64_t head : layout.gaussian_heads()) {
      CounterNormals(key, static_cast<uint32_t>(head), layout.dimensions(head),
                     row + layout.continuous_offset(head));
    }
    row += layout.continuous_width();
  }
  return noise;
}

}  // namespace esper::policy
