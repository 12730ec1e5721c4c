// Noise as a function of seed, step, head and choice.
#include "core/policy/counter_noise.h"

#include <array>
#include <cmath>

#include "core/policy/head_layout.h"
#include "gtest/gtest.h"
#include "tests/core/policy/test_specs.h"

namespace esper::policy {
namespace {

TEST(CounterNoiseTest, PhiloxGivesItsPublishedVectors) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t ones = 0xffffffff;
  EXPECT_EQ(Philox4x32({ones, ones, ones, ones}, {ones, ones}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                       {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(CounterNoiseTest, FollowsItsFormula) {
  // Word 1 of block 2 of head 3 at step 2^32 + 5.
  const std::array<uint32_t, 4> words =
      Philox4x32({5, 1, 3, 2}, {0x89abcdef, 0x01234567});
  const double u = ((words[1] >> 8) + 0.5) / 16777216.0;
  EXPECT_FLOAT_EQ(CounterNoise(0x0123456789abcdef, (1ull << 32) + 5, 3, 9),
                  static_cast<float>(-std::log(u)));
}

TEST(CounterNoiseTest, DependsOnTheRowsKeyAlone) {
  const HeadLayout layout(SmallNetworkGrowing(3));
  const std::vector<NoiseKey> keys = {{1, 0}, {1, 1}, {2, 0}, {9, 7}};
  const at::Tensor all = CounterNoise(keys, layout);
  for (size_t i = 0; i < keys.size(); ++i) {
    EXPECT_TRUE(CounterNoise({keys[i]}, layout)[0].equal(all[i]));
    for (size_t j = 0; j < i; ++j) EXPECT_FALSE(all[i].equal(all[j]));
  }
  for (int64_t k = 0; k < layout.num_heads(); ++k) {
    for (int64_t j = 0; j < layout.size(k); ++j) {
      EXPECT_EQ(all[3][layout.offset(k) + j].item<float>(),
                CounterNoise(9, 7, k, j));
    }
  }
}

TEST(CounterNoiseTest, IsExponential) {
  const HeadLayout layout(SmallNetworkGrowing(3));
  std::vector<NoiseKey> keys;
  for (uint64_t step = 0; step < 5000; ++step) keys.push_back({42, step});
  const at::Tensor noise = CounterNoise(keys, layout).to(at::kDouble);
  EXPECT_GT(noise.min().item<double>(), 0);
  EXPECT_NEAR(noise.mean().item<double>(), 1, 0.01);
  EXPECT_NEAR(noise.var().item<double>(), 1, 0.03);
  EXPECT_NEAR(noise.lt(std::log(2.0)).to(at::kDouble).mean().item<double>(),
              0.5, 0.005);
}

}  // namespace
}  // namespace esper::policy
