#include "proto/codec/tensor_codec.h"

#include <cmath>
#include <limits>

#include "ATen/ops/arange.h"
#include "ATen/ops/equal.h"
#include "ATen/ops/full.h"
#include "ATen/ops/rand.h"
#include "ATen/ops/tensor.h"
#include "ATen/ops/zeros.h"
#include "c10/core/InferenceMode.h"
#include "c10/util/Exception.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::codec {
namespace {

using ::esper::testing::Refused;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

v1::Tensor Message(v1::DataType dtype, const std::vector<int64_t>& shape,
                   size_t bytes) {
  v1::Tensor message;
  message.set_dtype(dtype);
  for (const int64_t size : shape) message.add_shape(size);
  message.set_data(std::string(bytes, '\0'));
  return message;
}

TensorSpec Floats(std::vector<int64_t> shape) {
  return {"observations", std::move(shape), {v1::DATA_TYPE_FLOAT32}};
}

TEST(TensorCodecTest, EveryDtypeSurvivesTheWire) {
  const at::Tensor values = at::arange(6).reshape({2, 3});
  for (const auto& [scalar, wire] :
       {std::make_pair(at::kFloat, v1::DATA_TYPE_FLOAT32),
        std::make_pair(at::kDouble, v1::DATA_TYPE_FLOAT64),
        std::make_pair(at::kLong, v1::DATA_TYPE_INT64),
        std::make_pair(at::kInt, v1::DATA_TYPE_INT32),
        std::make_pair(at::kChar, v1::DATA_TYPE_INT8),
        std::make_pair(at::kByte, v1::DATA_TYPE_UINT8),
        std::make_pair(at::kBool, v1::DATA_TYPE_BOOL)}) {
    v1::Tensor message;
    const at::Tensor sent = values.to(scalar);
    EncodeTensor(sent, &message);
    EXPECT_EQ(message.dtype(), wire);
    const auto got = DecodeTensor(message, {"x", {2, 3}, {wire}});
    ASSERT_OK(got);
    EXPECT_EQ(got->scalar_type(), scalar);
    EXPECT_TRUE(at::equal(*got, sent));
  }
}

TEST(TensorCodecTest, Bfloat16ArrivesAsFloat32) {
  v1::Tensor message;
  EncodeTensor(at::tensor({1.5f, -2.0f}).to(at::kBFloat16), &message);
  EXPECT_EQ(message.data().size(), 4u);
  const auto got = DecodeTensor(
      message, {"x", {2}, {v1::DATA_TYPE_FLOAT32, v1::DATA_TYPE_BFLOAT16}});
  ASSERT_OK(got);
  EXPECT_TRUE(at::equal(*got, at::tensor({1.5f, -2.0f})));
}

TEST(TensorCodecTest, StridedAndInferenceTensorsAreSentRowMajor) {
  c10::InferenceMode inference;
  v1::Tensor message;
  EncodeTensor(at::arange(6, at::kFloat).reshape({2, 3}).t(), &message);
  const auto got = DecodeTensor(message, Floats({3, 2}));
  ASSERT_OK(got);
  EXPECT_EQ((*got)[0][1].item<float>(), 3.0f);
}

TEST(TensorCodecTest, ScalarsAndEmptyTensorsSurviveTheWire) {
  v1::Tensor message;
  EncodeTensor(at::full({}, 2.5), &message);
  EXPECT_OK(DecodeTensor(message, Floats({})));
  EncodeTensor(at::zeros({0, 3}), &message);
  EXPECT_OK(DecodeTensor(message, Floats({-1, 3})));
}

TEST(TensorCodecTest, RefusesWhatTheFieldDoesNotHold) {
  const auto refused = Refused(kInvalid, "BAD_SHAPE");
  const v1::Tensor good = Message(v1::DATA_TYPE_FLOAT32, {2, 3}, 24);
  EXPECT_OK(DecodeTensor(good, Floats({2, -1})));
  EXPECT_THAT(DecodeTensor(good, Floats({3, 2})), refused);
  EXPECT_THAT(DecodeTensor(good, Floats({6})), refused);
  EXPECT_THAT(DecodeTensor(v1::Tensor(), Floats({2, 3})), refused);
  EXPECT_THAT(
      DecodeTensor(Message(v1::DATA_TYPE_FLOAT64, {2, 3}, 48), Floats({2, 3})),
      refused);
  EXPECT_THAT(
      DecodeTensor(Message(v1::DATA_TYPE_FLOAT32, {2, 3}, 23), Floats({2, 3})),
      refused);
  EXPECT_THAT(
      DecodeTensor(Message(v1::DATA_TYPE_FLOAT32, {2, 3}, 28), Floats({2, 3})),
      refused);
  EXPECT_THAT(
      DecodeTensor(Message(v1::DATA_TYPE_FLOAT32, {-2, 3}, 0), Floats({-1, 3})),
      refused);
}

TEST(TensorCodecTest, RefusesSizesWhoseProductOverflows) {
  const int64_t large = int64_t{1} << 62;
  EXPECT_THAT(DecodeTensor(Message(v1::DATA_TYPE_FLOAT32, {large, 8}, 0),
                           Floats({-1, 8})),
              Refused(kInvalid, "BAD_SHAPE"));
  // The elements fit 64 bits, their bytes do not.
  EXPECT_THAT(
      DecodeTensor(Message(v1::DATA_TYPE_FLOAT32, {large}, 0), Floats({-1})),
      Refused(kInvalid, "BAD_SHAPE"));
  EXPECT_THAT(DecodeTensor(Message(v1::DATA_TYPE_FLOAT32, {0, large, 8}, 0),
                           Floats({0, -1, -1})),
              Refused(kInvalid, "BAD_SHAPE"));
}

TEST(TensorCodecTest, RefusesAnUnknownDtypeAndBoolsThatAreNeither) {
  v1::Tensor unknown = Message(static_cast<v1::DataType>(99), {1}, 4);
  EXPECT_THAT(DecodeTensor(unknown, Floats({1})),
              Refused(kInvalid, "BAD_SHAPE"));
  v1::Tensor bools = Message(v1::DATA_TYPE_BOOL, {2}, 2);
  bools.mutable_data()->at(1) = 2;
  EXPECT_THAT(DecodeTensor(bools, {"forced", {2}, {v1::DATA_TYPE_BOOL}}),
              Refused(kInvalid, "BAD_SHAPE"));
}

TEST(TensorCodecTest, ErrorsNameFieldExpectationAndRow) {
  TensorSpec spec = Floats({4, 116});
  spec.row = 2;
  const auto status =
      DecodeTensor(Message(v1::DATA_TYPE_FLOAT32, {4, 115}, 1840), spec)
          .status();
  EXPECT_THAT(std::string(status.message()),
              ::testing::HasSubstr("observations must be float32 [4, 116], got "
                                   "float32 [4, 115]"));
  EXPECT_EQ(DetailOf(status)->field, "observations");
  EXPECT_EQ(DetailOf(status)->row, 2);
}

TEST(TensorCodecTest, ATensorThatRequiresGradIsNeverSent) {
  v1::Tensor message;
  EXPECT_THROW(EncodeTensor(at::zeros({1}).requires_grad_(true), &message),
               c10::Error);
}

TEST(TensorCodecTest, NonFiniteNumbersAreFoundByRow) {
  at::Tensor x = at::zeros({3, 4});
  EXPECT_OK(CheckFinite(x, "observations"));
  x[2][1] = std::numeric_limits<float>::infinity();
  EXPECT_THAT(CheckFinite(x, "observations"),
              Refused(kInvalid, "NONFINITE_INPUT"));
  EXPECT_EQ(DetailOf(CheckFinite(x, "observations"))->row, 2);
  x[1][3] = std::nanf("");
  EXPECT_EQ(DetailOf(CheckFinite(x, "observations"))->row, 1);
  const auto in_row = DetailOf(CheckFinite(x, "rewards", /*row=*/5));
  EXPECT_EQ(in_row->row, 5);
  EXPECT_EQ(in_row->step, 1);
}

TEST(TensorCodecTest, ValuesInMemoryEncodeLikeTensors) {
  v1::Tensor from_values, from_tensor;
  EncodeValues(std::vector<float>{1, 2, 3, 4}, {2, 2}, &from_values);
  EncodeTensor(at::arange(1, 5, at::kFloat).reshape({2, 2}), &from_tensor);
  EXPECT_EQ(from_values.SerializeAsString(), from_tensor.SerializeAsString());
}

}  // namespace
}  // namespace esper::codec
