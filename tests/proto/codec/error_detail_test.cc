#include "proto/codec/error_detail.h"

#include "google/protobuf/any.pb.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::codec {
namespace {

using ::esper::testing::Refused;

absl::Status OutOfOrder() {
  ErrorDetail detail;
  detail.reason = "STEP_OUT_OF_ORDER";
  detail.field = "step";
  detail.row = 3;
  detail.step = 7;
  detail.hint = "Send step 7.";
  return MakeStatus(absl::StatusCode::kFailedPrecondition, detail,
                    "Row 3 is out of order.");
}

void ExpectSame(const absl::Status& status, const absl::Status& expected) {
  EXPECT_EQ(status, expected);
  const auto detail = DetailOf(status);
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->reason, "STEP_OUT_OF_ORDER");
  EXPECT_EQ(detail->field, "step");
  EXPECT_EQ(detail->row, 3);
  EXPECT_EQ(detail->step, 7);
  EXPECT_EQ(detail->hint, "Send step 7.");
}

TEST(ErrorDetailTest, AStatusSurvivesTheWire) {
  const grpc::Status sent = EncodeStatus(OutOfOrder());
  EXPECT_EQ(sent.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  ExpectSame(DecodeStatus(sent), OutOfOrder());
}

TEST(ErrorDetailTest, ARefusalOfAStreamSurvivesTheWire) {
  ExpectSame(DecodeRefusal(EncodeRefusal(OutOfOrder())), OutOfOrder());
}

TEST(ErrorDetailTest, AStatusWithoutDetailGetsTheNameOfItsCodeAsReason) {
  const grpc::Status sent = EncodeStatus(absl::CancelledError("gone"));
  EXPECT_THAT(DecodeStatus(sent),
              Refused(absl::StatusCode::kCancelled, "CANCELLED"));
}

TEST(ErrorDetailTest, AStatusOfAnotherServerHasNoDetail) {
  const grpc::Status foreign(grpc::StatusCode::UNAVAILABLE, "no route", "junk");
  const absl::Status decoded = DecodeStatus(foreign);
  EXPECT_EQ(decoded.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(decoded.message(), "no route");
  EXPECT_FALSE(DetailOf(decoded).has_value());
}

TEST(ErrorDetailTest, SuccessStaysSuccess) {
  EXPECT_TRUE(EncodeStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(DecodeStatus(grpc::Status::OK).ok());
}

TEST(ErrorDetailTest, ALongSentenceIsCutBetweenCharacters) {
  std::string sentence;
  while (sentence.size() < 4000) sentence += "\xC3\xA9";  // A 2-byte letter.
  const grpc::Status sent =
      EncodeStatus(absl::InvalidArgumentError("x" + sentence));
  const std::string cut = sent.error_message();
  ASSERT_LE(cut.size(), kMaxMessageBytes);
  EXPECT_EQ(cut.substr(cut.size() - 3), "...");
  EXPECT_EQ((cut.size() - 4) % 2, 0u) << "half a letter was left";
}

TEST(ErrorDetailTest, AnUnsetRowIsNotRowZero) {
  EXPECT_FALSE(EncodeErrorDetail(ErrorDetail()).has_row());
  ErrorDetail first;
  first.row = 0;
  EXPECT_TRUE(EncodeErrorDetail(first).has_row());
  EXPECT_EQ(DecodeErrorDetail(v1::ErrorDetail()).row, -1);
}

}  // namespace
}  // namespace esper::codec
