#include "client/mask_packing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "client/tensor.h"
#include "tests/testing/status_matchers.h"

namespace esper::client {
namespace {

using ::esper::testing::StatusIs;
using ::testing::ElementsAre;
using Code = absl::StatusCode;

TEST(MaskPackingTest, PutsTheConditionalMaskFirstAndLowBitsFirst) {
  MaskLayout layout;
  layout.driver_actions = 2;
  layout.conditional_choices = 3;
  layout.head_sizes = {2, 4};
  EXPECT_EQ(layout.Bits(), 12);
  EXPECT_EQ(layout.Bytes(), 2);
  MaskRow row;
  row.conditional = {true, false, false, false, true, false};  // 01 0001
  row.heads = {{true, true}, {false, false, false, true}};
  auto packed = PackMask(layout, row);
  ASSERT_TRUE(packed.ok()) << packed.status();
  EXPECT_THAT(*packed, ElementsAre(0b11010001, 0b00001000));
}

TEST(MaskPackingTest, AgreesWithABitByBitModelForAnySizes) {
  std::mt19937 random(20240607);
  for (int round = 0; round < 50; ++round) {
    MaskLayout layout;
    layout.driver_actions = random() % 4;
    layout.conditional_choices = layout.driver_actions == 0 ? 0 : random() % 5;
    layout.head_sizes.resize(random() % 4);
    MaskRow row;
    std::vector<bool> bits;
    const auto draw = [&](int64_t size) {
      std::vector<bool> mask(size);
      for (int64_t i = 0; i < size; ++i) mask[i] = random() % 2 == 1;
      bits.insert(bits.end(), mask.begin(), mask.end());
      return mask;
    };
    row.conditional = draw(layout.driver_actions * layout.conditional_choices);
    for (int64_t& size : layout.head_sizes) {
      row.heads.push_back(draw(size = random() % 14));
    }
    auto packed = PackMask(layout, row);
    ASSERT_TRUE(packed.ok()) << packed.status();
    ASSERT_EQ(static_cast<int64_t>(packed->size()), layout.Bytes());
    for (size_t i = 0; i < packed->size() * 8; ++i) {
      const bool expected = i < bits.size() && bits[i];
      EXPECT_EQ(((*packed)[i / 8] >> (i % 8)) & 1, expected) << i;
    }
  }
}

TEST(MaskPackingTest, RefusesMasksOfAnotherSize) {
  MaskLayout layout{1, 2, {3}};
  EXPECT_THAT(PackMask(layout, {{true}, {{true, true, true}}}).status(),
              StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(PackMask(layout, {{true, true}, {{true}}}).status(),
              StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(PackMask(layout, {{true, true}, {}}).status(),
              StatusIs(Code::kInvalidArgument));
}

TEST(TensorTest, RoundTripsAndChecksDtypeShapeAndBytes) {
  v1::Tensor tensor = PackTensor(std::vector<float>{1, 2, 3, 4}, {2, 2});
  EXPECT_EQ(DescribeTensor(tensor), "float32 [2, 2]");
  EXPECT_THAT(*UnpackTensor<float>(tensor, {-1, 2}, "x"),
              ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(UnpackTensor<double>(tensor, {2, 2}, "x").status(),
              StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(UnpackTensor<float>(tensor, {4}, "x").status(),
              StatusIs(Code::kInvalidArgument));
  tensor.mutable_data()->pop_back();
  EXPECT_THAT(UnpackTensor<float>(tensor, {2, 2}, "x").status(),
              StatusIs(Code::kInvalidArgument));
  const v1::Tensor bytes = PackTensor(std::vector<uint8_t>{200, 3}, {2});
  EXPECT_THAT(*UnpackIntegers(bytes, {2}, "x"), ElementsAre(200, 3));
}

}  // namespace
}  // namespace esper::client
