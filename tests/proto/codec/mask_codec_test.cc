#include "proto/codec/mask_codec.h"

#include <cstdint>
#include <random>

#include "ATen/ops/equal.h"
#include "ATen/ops/rand.h"
#include "ATen/ops/tensor.h"
#include "core/policy/action_mask.h"
#include "core/policy/policy_spec.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::codec {
namespace {

using ::esper::testing::Refused;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

policy::PolicySpec Growing(int slots) {
  policy::NetworkGrowingOptions options;
  options.slot_ids.clear();
  for (int s = 0; s < slots; ++s) {
    options.slot_ids.push_back("r0c" + std::to_string(s));
  }
  return policy::PolicySpec::NetworkGrowing(options);
}

// Two independent heads and no conditional mask; absent means allowed.
policy::PolicySpec TwoHeads() {
  policy::PolicySpec spec;
  spec.name = "two";
  spec.observation = {{"x", 4}};
  policy::HeadSpec left;
  left.name = "left";
  left.size = 3;
  policy::HeadSpec right = left;
  right.name = "right";
  right.size = 2;
  spec.heads = {left, right};
  spec.sampling_order = {"left", "right"};
  spec.mask_optional = true;
  return spec;
}

v1::Tensor Rows(const std::vector<std::string>& rows) {
  v1::Tensor message;
  message.set_dtype(v1::DATA_TYPE_UINT8);
  message.add_shape(rows.size());
  message.add_shape(rows.front().size());
  for (const std::string& row : rows) *message.mutable_data() += row;
  return message;
}

// What the environment packs, this codec unpacks to the same booleans.
TEST(MaskCodecTest, AgreesWithTheEnvironmentOnEverySlotCount) {
  std::mt19937 random(7);
  for (const int slots : {1, 2, 3, 5, 8}) {
    const MaskCodec codec(Growing(slots));
    policy::ActionMask mask;
    mask.num_slots = slots;
    mask.heads.resize(policy::PackedMaskSize(slots));
    mask.slot_by_op.resize(6 * slots);
    for (size_t i = 0; i < mask.heads.size(); ++i) mask.heads[i] = random() & 1;
    for (size_t i = 0; i < mask.slot_by_op.size(); ++i) {
      mask.slot_by_op[i] = random() & 1;
    }
    const std::string packed = policy::PackMaskBits(mask);
    ASSERT_EQ(codec.row_bytes(), packed.size());
    const auto decoded = codec.Decode(Rows({packed}), 1, "action_masks");
    ASSERT_OK(decoded);
    const bool* heads = decoded->heads.const_data_ptr<bool>();
    for (size_t i = slots; i < mask.heads.size(); ++i) {
      EXPECT_EQ(heads[i], mask.heads[i]) << slots << " slots, entry " << i;
    }
    const bool* conditional = decoded->conditional.const_data_ptr<bool>();
    for (size_t i = 0; i < mask.slot_by_op.size(); ++i) {
      EXPECT_EQ(conditional[i], mask.slot_by_op[i]);
    }
    v1::Tensor again;
    codec.Encode(*decoded, &again);
    EXPECT_EQ(again.data(), packed);
  }
}

TEST(MaskCodecTest, TheFirstBitIsTheLowestOfTheFirstByte) {
  const MaskCodec codec(TwoHeads());
  ASSERT_EQ(codec.row_bytes(), 1);
  const auto decoded = codec.Decode(Rows({"\x01", "\x12"}), 2, "action_masks");
  ASSERT_OK(decoded);
  EXPECT_FALSE(decoded->conditional.defined());
  const std::vector<int> expected = {1, 0, 0, 0, 0, 0, 1, 0, 0, 1};
  EXPECT_TRUE(at::equal(decoded->heads.reshape({10}),
                        at::tensor(expected).to(at::kBool)));
}

TEST(MaskCodecTest, RefusesPaddingBitsNamingTheRow) {
  const MaskCodec codec(TwoHeads());
  const auto status =
      codec.Decode(Rows({"\x1f", "\x3f"}), 2, "action_masks").status();
  EXPECT_THAT(status, Refused(kInvalid, "MALFORMED_REQUEST"));
  EXPECT_EQ(DetailOf(status)->row, 1);
}

TEST(MaskCodecTest, RefusesOtherWidthsAndRowCounts) {
  const MaskCodec codec(Growing(3));
  const std::string row(7, '\xff');
  EXPECT_OK(codec.Decode(Rows({row}), 1, "action_masks"));
  EXPECT_THAT(codec.Decode(Rows({row}), 2, "action_masks"),
              Refused(kInvalid, "BAD_SHAPE"));
  EXPECT_THAT(codec.Decode(Rows({row + "\x01"}), 1, "action_masks"),
              Refused(kInvalid, "BAD_SHAPE"));
}

TEST(MaskCodecTest, AnAbsentMaskAllowsAllOnlyIfTheSpecificationSaysSo) {
  const auto all = MaskCodec(TwoHeads()).Decode({}, 2, "action_masks");
  ASSERT_OK(all);
  EXPECT_TRUE(all->heads.all().item<bool>());
  EXPECT_THAT(MaskCodec(Growing(3)).Decode({}, 2, "action_masks"),
              Refused(kInvalid, "BAD_SHAPE"));
}

TEST(MaskCodecTest, GaussianHeadsHaveNoMask) {
  policy::PolicySpec spec = TwoHeads();
  spec.heads.insert(spec.heads.begin() + 1,
                    policy::HeadSpec::Gaussian("middle", 7));
  spec.sampling_order.push_back("middle");
  ASSERT_OK(spec.Validate());
  const MaskCodec codec(spec);
  ASSERT_EQ(codec.row_bytes(), 1);
  // left 101, right 01.
  const auto masks = codec.Decode(Rows({"\x15"}), 1, "action_masks");
  ASSERT_OK(masks);
  EXPECT_TRUE(at::equal(
      masks->heads, at::tensor({1, 0, 1, 0, 1}).to(at::kBool).view({1, 5})));
  EXPECT_OK(codec.CheckNotEmpty(*masks));
  v1::Tensor again;
  codec.Encode(*masks, &again);
  EXPECT_EQ(again.data(), "\x15");
}

TEST(MaskCodecTest, WithoutChoicesThereIsNothingToMiss) {
  policy::PolicySpec spec =
      policy::PolicySpec::Plain(4, {policy::HeadSpec::Gaussian("box", 3)});
  spec.mask_optional = false;
  const MaskCodec codec(spec);
  EXPECT_EQ(codec.row_bytes(), 0);
  for (const v1::Tensor& message : {v1::Tensor(), Rows({"", ""})}) {
    const auto masks = codec.Decode(message, 2, "action_masks");
    ASSERT_OK(masks);
    EXPECT_EQ(masks->heads.sizes().vec(), (std::vector<int64_t>{2, 0}));
    EXPECT_OK(codec.CheckNotEmpty(*masks));
  }
}

class EmptyMaskTest : public ::testing::Test {
 protected:
  // Position of a head in the packed masks.
  int64_t Offset(const std::string& head) const {
    int64_t offset = 0;
    for (const auto& each : spec_.heads) {
      if (each.name == head) return offset;
      offset += each.size;
    }
    ADD_FAILURE() << "no head " << head;
    return 0;
  }
  int64_t Size(const std::string& head) const {
    return spec_.heads[spec_.HeadIndex(head)].size;
  }
  void Clear(const std::string& head, int64_t row) {
    masks_.heads[row].narrow(0, Offset(head), Size(head)).fill_(false);
  }
  void AllowOnlyOp(int64_t op, int64_t row) {
    Clear("op", row);
    masks_.heads[row][Offset("op") + op] = true;
  }

  const policy::PolicySpec spec_ = Growing(3);
  const MaskCodec codec_{spec_};
  ActionMasks masks_ = codec_.AllowAll(3);
};

TEST_F(EmptyMaskTest, FullMasksPass) {
  EXPECT_OK(codec_.CheckNotEmpty(masks_));
}

TEST_F(EmptyMaskTest, ADriverWithoutChoicesIsRefused) {
  Clear("op", 2);
  const auto status = codec_.CheckNotEmpty(masks_);
  EXPECT_THAT(status, Refused(kInvalid, "EMPTY_ACTION_MASK"));
  EXPECT_EQ(DetailOf(status)->row, 2);
  EXPECT_EQ(DetailOf(status)->field, "op");
}

TEST_F(EmptyMaskTest, EveryHeadThatAnAllowedOpUsesIsChecked) {
  for (const std::string head : {"blueprint", "style", "tempo", "alpha_target",
                                 "alpha_speed", "alpha_curve"}) {
    masks_ = codec_.AllowAll(3);
    Clear(head, 1);
    const auto status = codec_.CheckNotEmpty(masks_);
    EXPECT_THAT(status, Refused(kInvalid, "EMPTY_ACTION_MASK")) << head;
    EXPECT_EQ(DetailOf(status)->field, head);
    EXPECT_EQ(DetailOf(status)->row, 1);
    // WAIT uses none of them.
    AllowOnlyOp(0, 1);
    EXPECT_OK(codec_.CheckNotEmpty(masks_)) << head;
  }
}

TEST_F(EmptyMaskTest, TheConditionalRowOfEachAllowedOpIsChecked) {
  masks_.conditional[0][0].fill_(false);  // WAIT needs no slot.
  EXPECT_OK(codec_.CheckNotEmpty(masks_));
  masks_.conditional[0][3].fill_(false);
  const auto status = codec_.CheckNotEmpty(masks_, /*rows_are_steps=*/4);
  EXPECT_THAT(status, Refused(kInvalid, "EMPTY_ACTION_MASK"));
  EXPECT_EQ(DetailOf(status)->field, "slot");
  EXPECT_EQ(DetailOf(status)->row, 4);
  EXPECT_EQ(DetailOf(status)->step, 0);
  AllowOnlyOp(1, 0);
  EXPECT_OK(codec_.CheckNotEmpty(masks_));
}

TEST_F(EmptyMaskTest, TheRowInForceReplacesTheConditionalHead) {
  masks_.conditional[1][2][0] = false;
  masks_.conditional[1][2][1] = false;
  const at::Tensor ops = at::tensor({0, 2, 2}, at::kLong);
  const at::Tensor heads = codec_.SelectConditional(masks_, ops);
  EXPECT_TRUE(at::equal(heads[1].narrow(0, Offset("slot"), 3),
                        at::tensor({0, 0, 1}).to(at::kBool)));
  EXPECT_TRUE(heads[0].all().item<bool>());
  EXPECT_TRUE(heads[2].all().item<bool>());
}

}  // namespace
}  // namespace esper::codec
