#include "server/state_codec.h"

#include <unistd.h>

#include <cstring>
#include <fstream>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::server {
namespace {

using ::esper::testing::Refused;
using ::esper::testing::StatusIs;
using Code = absl::StatusCode;

constexpr char kKey[] = "0123456789abcdef";
constexpr size_t kTagBytes = 32;

policy::PolicySpec Spec(int64_t hidden = 8) {
  policy::NetworkGrowingOptions options;
  options.feature_dim = 8;
  options.hidden_dim = hidden;
  return policy::PolicySpec::NetworkGrowing(options);
}

HeldState State() {
  const policy::PolicySpec spec = Spec();
  HeldState state;
  state.seed = 0xfedcba9876543210;
  state.step = 42;
  state.deterministic = true;
  for (int64_t i = 0; i < spec.lstm_layers * spec.hidden_dim; ++i) {
    state.h.push_back(0.25f * static_cast<float>(i));
    state.c.push_back(-1.5f * static_cast<float>(i));
  }
  return state;
}

void ExpectEqual(const HeldState& a, const HeldState& b) {
  EXPECT_EQ(a.seed, b.seed);
  EXPECT_EQ(a.step, b.step);
  EXPECT_EQ(a.deterministic, b.deterministic);
  EXPECT_EQ(a.h, b.h);
  EXPECT_EQ(a.c, b.c);
}

TEST(StateCodecTest, GivesBackWhatItWasGiven) {
  for (const std::string key : {"", kKey}) {
    const StateCodec codec(Spec(), key);
    const auto decoded = codec.Decode(codec.Encode(State()), 0);
    ASSERT_OK(decoded);
    ExpectEqual(*decoded, State());
  }
}

TEST(StateCodecTest, TheLayoutIsAsDocumented) {
  const std::string bytes = StateCodec(Spec(), "").Encode(State());
  EXPECT_EQ(bytes.size(), 64 + 2 * 4 * State().h.size() + kTagBytes);
  EXPECT_EQ(bytes.substr(0, 8), std::string("ESST\x01\0\x01\0", 8));
  uint64_t seed = 0;
  std::memcpy(&seed, bytes.data() + 40, 8);
  EXPECT_EQ(seed, State().seed);
  int64_t step = 0;
  std::memcpy(&step, bytes.data() + 48, 8);
  EXPECT_EQ(step, 42);
  EXPECT_EQ(StateCodec(Spec(), kKey).Encode(State())[6], 3);
}

TEST(StateCodecTest, NoFlippedByteIsTaken) {
  for (const std::string key : {"", kKey}) {
    const StateCodec codec(Spec(), key);
    const std::string good = codec.Encode(State());
    for (size_t at = 0; at < good.size(); ++at) {
      for (const int flip : {0x01, 0x80, 0xff}) {
        std::string bad = good;
        bad[at] = static_cast<char>(bad[at] ^ flip);
        EXPECT_THAT(codec.Decode(bad, 3),
                    Refused(Code::kInvalidArgument, "BAD_STATE"))
            << "byte " << at << " ^ " << flip;
      }
    }
  }
}

TEST(StateCodecTest, NoCutOrLengthenedStateIsTaken) {
  const StateCodec codec(Spec(), "");
  const std::string good = codec.Encode(State());
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_THAT(codec.Decode(good.substr(0, size), 0),
                Refused(Code::kInvalidArgument, "BAD_STATE"))
        << size;
  }
  EXPECT_THAT(codec.Decode(good + '\0', 0),
              Refused(Code::kInvalidArgument, "BAD_STATE"));
  EXPECT_THAT(codec.Decode(good + good, 0),
              Refused(Code::kInvalidArgument, "BAD_STATE"));
}

TEST(StateCodecTest, RefusalsNameTheRow) {
  const auto status = StateCodec(Spec(), "").Decode("nonsense", 5).status();
  EXPECT_EQ(DetailOf(status)->row, 5);
  EXPECT_EQ(DetailOf(status)->field, "recurrent_state");
}

TEST(StateCodecTest, AnotherSpecificationIsToldApartFromDamage) {
  const std::string other = StateCodec(Spec(), "").Encode(State());
  EXPECT_THAT(StateCodec(Spec(16), "").Decode(other, 0),
              Refused(Code::kFailedPrecondition, "SPEC_MISMATCH"));
}

TEST(StateCodecTest, OnlyTheSameKeyOpensAState) {
  const StateCodec with_key(Spec(), kKey);
  const StateCodec without(Spec(), "");
  const StateCodec other(Spec(), "fedcba9876543210");
  EXPECT_OK(StateCodec(Spec(), kKey).Decode(with_key.Encode(State()), 0));
  for (const auto& [sealed, opener] :
       {std::make_pair(&with_key, &without), std::make_pair(&without, &other),
        std::make_pair(&with_key, &other)}) {
    EXPECT_THAT(opener->Decode(sealed->Encode(State()), 0),
                Refused(Code::kInvalidArgument, "BAD_STATE"));
  }
}

TEST(StateCodecTest, WhatNoServerWritesIsRefusedAlthoughItsDigestIsRight) {
  const StateCodec codec(Spec(), "");
  HeldState state = State();
  state.c[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(codec.Decode(codec.Encode(state), 0),
              Refused(Code::kInvalidArgument, "BAD_STATE"));
  for (const int64_t step : {int64_t{0}, int64_t{-1}, INT64_MAX}) {
    state = State();
    state.step = step;
    EXPECT_THAT(codec.Decode(codec.Encode(state), 0),
                Refused(Code::kInvalidArgument, "BAD_STATE"));
  }
}

TEST(ReadStateKeyTest, TakesTheFileWithoutItsNewline) {
  const std::string path =
      absl::StrCat(::testing::TempDir(), "/state_key", getpid());
  std::ofstream(path) << kKey << "\n";
  const auto key = ReadStateKey(path);
  ASSERT_OK(key);
  EXPECT_EQ(*key, kKey);
  std::ofstream(path, std::ios::trunc) << "short\n";
  EXPECT_THAT(ReadStateKey(path), StatusIs(Code::kInvalidArgument));
  unlink(path.c_str());
  EXPECT_THAT(ReadStateKey(path), StatusIs(Code::kNotFound));
}

}  // namespace
}  // namespace esper::server
