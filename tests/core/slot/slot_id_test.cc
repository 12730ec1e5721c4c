#include "core/slot/slot_id.h"

#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::slot {
namespace {

using ::esper::testing::IsOk;
using ::esper::testing::Refused;
using ::esper::testing::StatusIs;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(SlotIdTest, ReadsWhatItWrites) {
  for (const int32_t row : {0, 1, 9, 10, 2147483647}) {
    for (const int32_t column : {0, 7, 123456, 2147483647}) {
      const auto id = SlotId::Create(row, column);
      ASSERT_OK(id);
      const auto again = SlotId::Parse(id->ToString());
      ASSERT_OK(again);
      EXPECT_EQ(*again, *id);
    }
  }
}

TEST(SlotIdTest, RefusesEverythingElse) {
  const std::vector<std::string> bad = {"",
                                        "r",
                                        "c0",
                                        "r0",
                                        "r0c",
                                        "rc",
                                        "r0c0 ",
                                        " r0c0",
                                        "r0c0\n",
                                        "R0C0",
                                        "r00c0",
                                        "r0c01",
                                        "r-1c0",
                                        "r0c-1",
                                        "r+1c0",
                                        "r0x0",
                                        "r0c0x",
                                        "r0c0c0",
                                        "r1.0c0",
                                        "r2147483648c0",
                                        "r0c4294967296",
                                        "r0c99999999999999999999",
                                        "r\xD9\xA1"
                                        "c0",
                                        "r\xEF\xBC\x91"
                                        "c0",
                                        std::string("r0c0\0", 5)};
  for (const std::string& text : bad) {
    EXPECT_THAT(SlotId::Parse(text), Refused(kInvalid, "BAD_SLOT_ID")) << text;
  }
  EXPECT_THAT(SlotId::Create(-1, 0), Refused(kInvalid, "BAD_SLOT_ID"));
  EXPECT_THAT(SlotId::Create(0, -1), Refused(kInvalid, "BAD_SLOT_ID"));
}

TEST(SlotIdTest, NamesTheRetiredNames) {
  for (const char* name : {"early", "MID", "Late"}) {
    const auto id = SlotId::Parse(name);
    EXPECT_THAT(id, Refused(kInvalid, "BAD_SLOT_ID"));
    EXPECT_NE(id.status().message().find("retired"), std::string::npos);
  }
}

TEST(SlotIdTest, SortsByNumber) {
  std::vector<SlotId> ids;
  for (const char* text : {"r1c0", "r0c10", "r0c9", "r10c0", "r2c0"}) {
    ids.push_back(SlotId::Parse(text).value());
  }
  std::sort(ids.begin(), ids.end());
  std::string order;
  for (const SlotId& id : ids) order += id.ToString() + " ";
  EXPECT_EQ(order, "r0c9 r0c10 r1c0 r2c0 r10c0 ");
}

// Whatever is accepted must be exactly what would be written for it.
TEST(SlotIdTest, AcceptsOnlyCanonicalTextOfRandomStrings) {
  std::mt19937 random(20240801);
  const std::string alphabet = "rc0123456789-+ .x\n";
  int accepted = 0;
  for (int i = 0; i < 200000; ++i) {
    std::string text;
    const int length = std::uniform_int_distribution<int>(0, 7)(random);
    for (int k = 0; k < length; ++k) {
      text += alphabet[std::uniform_int_distribution<size_t>(
          0, alphabet.size() - 1)(random)];
    }
    const auto id = SlotId::Parse(text);
    if (id.ok()) {
      ++accepted;
      EXPECT_EQ(id->ToString(), text);
    }
  }
  EXPECT_GT(accepted, 0);
}

InjectionSpec Spec(const std::string& id, int64_t order) {
  const SlotId parsed = SlotId::Parse(id).value();
  InjectionSpec spec;
  spec.slot_id = id;
  spec.channels = 8 + order;
  spec.position = 0.5;
  spec.layer_begin = 1;
  spec.layer_end = 2;
  spec.order = order;
  spec.row = parsed.row();
  spec.column = parsed.column();
  return spec;
}

TEST(InjectionSpecTest, RefusesEachFieldOutOfRange) {
  EXPECT_OK(Spec("r0c1", 0).Validate());
  const auto broken = [](auto change) {
    InjectionSpec spec = Spec("r0c1", 0);
    change(spec);
    return spec.Validate();
  };
  EXPECT_THAT(broken([](auto& s) { s.slot_id = "mid"; }),
              Refused(kInvalid, "BAD_SLOT_ID"));
  EXPECT_THAT(broken([](auto& s) { s.channels = 0; }), StatusIs(kInvalid));
  EXPECT_THAT(broken([](auto& s) { s.position = -0.1; }), StatusIs(kInvalid));
  EXPECT_THAT(broken([](auto& s) { s.position = 1.1; }), StatusIs(kInvalid));
  EXPECT_THAT(broken([](auto& s) { s.position = 0.0 / 0.0; }),
              StatusIs(kInvalid));
  EXPECT_THAT(broken([](auto& s) { s.layer_begin = -1; }), StatusIs(kInvalid));
  EXPECT_THAT(broken([](auto& s) { s.layer_end = 0; }), StatusIs(kInvalid));
  EXPECT_THAT(broken([](auto& s) { s.order = -1; }), StatusIs(kInvalid));
  EXPECT_THAT(broken([](auto& s) { s.row = 1; }), StatusIs(kInvalid));
  EXPECT_THAT(broken([](auto& s) { s.column = 0; }), StatusIs(kInvalid));
  EXPECT_THAT(broken([](auto& s) { s.surface = SurfaceType(5); }),
              StatusIs(kInvalid));
}

TEST(SlotConfigTest, DefaultIsOneRowOfThree) {
  const SlotConfig config = SlotConfig::Default();
  EXPECT_EQ(config.slot_ids(),
            (std::vector<std::string>{"r0c0", "r0c1", "r0c2"}));
  EXPECT_EQ(config.IndexOf("r0c2").value(), 2);
  EXPECT_EQ(config.IdAt(1).value(), "r0c1");
}

TEST(SlotConfigTest, GridIsRowMajor) {
  const auto config = SlotConfig::ForGrid(2, 2);
  ASSERT_OK(config);
  EXPECT_EQ(config->slot_ids(),
            (std::vector<std::string>{"r0c0", "r0c1", "r1c0", "r1c1"}));
  EXPECT_THAT(SlotConfig::ForGrid(0, 2), StatusIs(kInvalid));
  EXPECT_THAT(SlotConfig::ForGrid(2, 0), StatusIs(kInvalid));
}

TEST(SlotConfigTest, FollowsTheOrderOfSpecs) {
  const auto config = SlotConfig::FromSpecs(
      {Spec("r0c1", 4), Spec("r1c0", 2), Spec("r0c0", 3)});
  ASSERT_OK(config);
  EXPECT_EQ(config->slot_ids(),
            (std::vector<std::string>{"r1c0", "r0c0", "r0c1"}));
  EXPECT_EQ(config->ChannelsOf("r0c1").value(), 12);
}

TEST(SlotConfigTest, RefusesEmptyRepeatedAndUnknown) {
  EXPECT_THAT(SlotConfig::FromSpecs({}), StatusIs(kInvalid));
  EXPECT_THAT(SlotConfig::FromSpecs({Spec("r0c0", 1), Spec("r0c1", 1)}),
              StatusIs(kInvalid));
  EXPECT_THAT(SlotConfig::FromSpecs({Spec("r0c0", 1), Spec("r0c0", 2)}),
              StatusIs(kInvalid));
  EXPECT_THAT(SlotConfig::Create({}), StatusIs(kInvalid));
  EXPECT_THAT(SlotConfig::Create({"r0c0", "r0c0"}), StatusIs(kInvalid));
  EXPECT_THAT(SlotConfig::Create({"late"}), StatusIs(kInvalid));

  const SlotConfig config = SlotConfig::Default();
  EXPECT_THAT(config.IdAt(3), StatusIs(absl::StatusCode::kOutOfRange));
  EXPECT_THAT(config.IdAt(-1), StatusIs(absl::StatusCode::kOutOfRange));
  EXPECT_THAT(config.IndexOf("r9c9"), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(config.ChannelsOf("r0c0"), StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace esper::slot
