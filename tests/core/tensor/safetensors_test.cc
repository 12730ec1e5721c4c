#include "core/tensor/safetensors.h"

#include <cstring>
#include <fstream>

#include "ATen/ops/arange.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/full.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/tensor.h"
#include "core/error.h"
#include "core/tensor/checks.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::tensor {
namespace {

using ::esper::testing::IsOk;
using ::esper::testing::Refused;
using ::esper::testing::StatusIs;

constexpr absl::StatusCode kDataLoss = absl::StatusCode::kDataLoss;

// A file with any header and data, sound or not.
std::string FileOf(const std::string& header, const std::string& data) {
  const uint64_t size = header.size();
  std::string bytes(8, '\0');
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(size >> (8 * i));
  return bytes + header + data;
}

std::string Sample() {
  const NamedTensors tensors = {{"b", at::arange(6, at::kFloat).view({2, 3})},
                                {"a", at::tensor({1, 0}).to(at::kBool)},
                                {"empty", at::empty({0, 4}, at::kLong)},
                                {"scalar", at::tensor(7, at::kLong)}};
  return *SerializeSafetensors(tensors, {{"key", "value"}});
}

TEST(SafetensorsTest, GivesBackWhatWasWritten) {
  const std::string path = ::testing::TempDir() + "/sample.safetensors";
  const at::Tensor strided = at::arange(6, at::kFloat).view({2, 3}).t();
  const NamedTensors tensors = {{"strided", strided},
                                {"half", at::ones({2}, at::kBFloat16)},
                                {"long", at::arange(3, at::kLong)}};
  ASSERT_OK(WriteSafetensors(path, tensors, {{"slots", "r0c0"}}));
  const auto file = ReadSafetensors(path);
  ASSERT_OK(file);
  ASSERT_EQ(file->tensors.size(), 3);
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(file->tensors[i].first, tensors[i].first);
    EXPECT_TRUE(file->tensors[i].second.equal(tensors[i].second));
  }
  EXPECT_EQ(*file->FindMetadata("slots"), "r0c0");
  EXPECT_EQ(file->FindMetadata("other"), nullptr);
  EXPECT_EQ(file->Find("other"), nullptr);
}

TEST(SafetensorsTest, RefusesEveryTruncation) {
  const std::string bytes = Sample();
  ASSERT_THAT(ParseSafetensors(bytes, "sample"), IsOk());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THAT(ParseSafetensors(bytes.substr(0, size), "sample"),
                Refused(kDataLoss, "CORRUPT_CHECKPOINT"))
        << size << " bytes";
  }
  EXPECT_THAT(ParseSafetensors(bytes + "x", "sample"),
              Refused(kDataLoss, "CORRUPT_CHECKPOINT"));
}

TEST(SafetensorsTest, NamesFileTensorAndOffset) {
  const auto file = ParseSafetensors(
      FileOf(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
             std::string(12, '\0')),
      "weights.safetensors");
  ASSERT_THAT(file, StatusIs(kDataLoss));
  const std::string message(file.status().message());
  EXPECT_NE(message.find("weights.safetensors"), std::string::npos);
  EXPECT_NE(message.find("tensor w"), std::string::npos);
  EXPECT_NE(message.find("at byte"), std::string::npos);
  EXPECT_EQ(DetailOf(file.status())->tensor, "w");
}

TEST(SafetensorsTest, SurvivesAnyFlippedByteOfTheHeader) {
  const std::string bytes = Sample();
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  for (size_t i = 0; i < 8 + header; ++i) {
    for (const int flip : {0x01, 0x20, 0x80, 0xff}) {
      std::string broken = bytes;
      broken[i] = static_cast<char>(broken[i] ^ flip);
      // Some flips change a name or a value only; none may crash.
      const auto file = ParseSafetensors(broken, "sample");
      EXPECT_TRUE(file.ok() || file.status().code() == kDataLoss) << i;
    }
  }
}

struct BadHeader {
  const char* name;
  const char* header;
  int data_bytes;
};

class SafetensorsBadHeaderTest : public ::testing::TestWithParam<BadHeader> {};

TEST_P(SafetensorsBadHeaderTest, IsRefused) {
  const std::string data(GetParam().data_bytes, '\0');
  EXPECT_THAT(ParseSafetensors(FileOf(GetParam().header, data), "sample"),
              Refused(kDataLoss, "CORRUPT_CHECKPOINT"));
}

INSTANTIATE_TEST_SUITE_P(
    Every, SafetensorsBadHeaderTest,
    ::testing::Values(
        BadHeader{"NotJson", "{\"w\":", 0}, BadHeader{"NotAnObject", "[1]", 0},
        BadHeader{"Overlap",
                  R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                  R"("b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
                  6},
        BadHeader{"Gap",
                  R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                  R"("b":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}})",
                  6},
        BadHeader{"PastTheEnd",
                  R"({"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}})",
                  4},
        BadHeader{"Backwards",
                  R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[4,2]}})",
                  4},
        BadHeader{"Negative",
                  R"({"a":{"dtype":"U8","shape":[-2],"data_offsets":[0,2]}})",
                  2},
        BadHeader{"WrongLength",
                  R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})",
                  4},
        // 2^62 * 4 is 0 modulo 2^64.
        BadHeader{"OverflowToZero",
                  R"({"a":{"dtype":"F32","shape":[4611686018427387904],)"
                  R"("data_offsets":[0,0]}})",
                  0},
        BadHeader{"OverflowOfTwoSizes",
                  R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],)"
                  R"("data_offsets":[0,0]}})",
                  0},
        BadHeader{"SizeAboveInt64",
                  R"({"a":{"dtype":"U8","shape":[18446744073709551615],)"
                  R"("data_offsets":[0,0]}})",
                  0},
        BadHeader{"UnknownDtype",
                  R"({"a":{"dtype":"F8","shape":[1],"data_offsets":[0,1]}})",
                  1},
        BadHeader{"FractionalSize",
                  R"({"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}})",
                  1},
        BadHeader{"SurplusField",
                  R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],)"
                  R"("x":1}})",
                  1},
        BadHeader{"RepeatedName",
                  R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                  R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                  1},
        BadHeader{"MetadataNotText", R"({"__metadata__":{"a":1}})", 0},
        BadHeader{"DeepNesting", R"({"a":[[[[[[[[1]]]]]]]]})", 0}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(SafetensorsTest, RefusesAHeaderAboveTheLimit) {
  SafetensorsLimits limits;
  limits.max_header_bytes = 16;
  EXPECT_THAT(ParseSafetensors(Sample(), "sample", limits),
              Refused(kDataLoss, "CORRUPT_CHECKPOINT"));
  std::string huge(16, '\xff');
  EXPECT_THAT(ParseSafetensors(huge, "sample"),
              Refused(kDataLoss, "CORRUPT_CHECKPOINT"));
}

TEST(SafetensorsTest, RefusesABoolThatIsNeitherZeroNorOne) {
  EXPECT_THAT(
      ParseSafetensors(
          FileOf(R"({"a":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}})",
                 "\x02"),
          "sample"),
      Refused(kDataLoss, "CORRUPT_CHECKPOINT"));
}

TEST(SafetensorsTest, TellsAMissingFileFromABrokenOne) {
  EXPECT_THAT(ReadSafetensors(::testing::TempDir() + "/absent"),
              StatusIs(absl::StatusCode::kNotFound));
}

TEST(SafetensorsTest, RefusesToWriteBadNamesAndUndefinedTensors) {
  const at::Tensor x = at::ones({1});
  for (const NamedTensors& tensors :
       {NamedTensors{{"", x}}, NamedTensors{{"a", x}, {"a", x}},
        NamedTensors{{"__metadata__", x}}, NamedTensors{{"a", at::Tensor()}},
        NamedTensors{{"a", at::ones({1}, at::kComplexFloat)}}}) {
    EXPECT_THAT(SerializeSafetensors(tensors),
                StatusIs(absl::StatusCode::kInvalidArgument));
  }
}

TEST(SafetensorsTest, KeepsTheOldFileIfTheNewOneCannotBeWritten) {
  const std::string path = ::testing::TempDir() + "/kept.safetensors";
  ASSERT_OK(WriteSafetensors(path, {{"a", at::ones({1})}}));
  EXPECT_THAT(WriteSafetensors(path, {{"a", at::Tensor()}}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_OK(ReadSafetensors(path));
  EXPECT_THAT(WriteSafetensors(path + "/below/file", {{"a", at::ones({1})}}),
              StatusIs(absl::StatusCode::kInternal));
}

TEST(ChecksTest, NamesShapeAndDtype) {
  const at::Tensor x = at::ones({2, 3});
  EXPECT_NO_THROW(CheckTensor(x, "x", at::kFloat, {kAnySize, 3}));
  EXPECT_THROW(CheckTensor(x, "x", at::kLong, {2, 3}), ShapeError);
  EXPECT_THROW(CheckTensor(x, "x", at::kFloat, {6}), ShapeError);
  EXPECT_THROW(CheckTensor({}, "x", at::kFloat, {2}), ShapeError);
  try {
    CheckTensor(x, "obs", at::kFloat, {2, 4});
    FAIL();
  } catch (const ShapeError& error) {
    EXPECT_STREQ(error.detail().tensor.c_str(), "obs");
    EXPECT_NE(std::string(error.what()).find("float32[2, 4]"),
              std::string::npos);
    EXPECT_NE(std::string(error.what()).find("float32[2, 3]"),
              std::string::npos);
  }
}

TEST(ChecksTest, FindsTheFirstNonFiniteNumberOfAnyLayout) {
  at::Tensor x = at::ones({3, 5});
  EXPECT_EQ(FirstNonFinite(x), -1);
  x[2][1] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(FirstNonFinite(x), 11);
  EXPECT_EQ(FirstNonFinite(x.t()), 5);
  EXPECT_EQ(FirstNonFinite(x.to(at::kDouble)), 11);
  x[0][4] = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(FirstNonFinite(x), 4);
  try {
    CheckFinite(x, "x", /*row_dim=*/0, /*step_dim=*/1);
    FAIL();
  } catch (const NonFiniteError& error) {
    EXPECT_EQ(error.detail().row, 0);
    EXPECT_EQ(error.detail().step, 4);
  }
  // The largest finite number is none.
  EXPECT_EQ(FirstNonFinite(at::full({4}, 3.4028234e38f)), -1);
}

}  // namespace
}  // namespace esper::tensor
