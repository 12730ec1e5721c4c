#include "core/error.h"

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper {
namespace {

using ::esper::testing::Refused;
using Code = absl::StatusCode;

ErrorDetail FullDetail() {
  ErrorDetail detail;
  detail.reason = "STEP_OUT_OF_ORDER";
  detail.field = "rows.step";
  detail.row = 3;
  detail.step = 7;
  detail.tensor = "observations";
  detail.hint = "Send step 7.";
  return detail;
}

TEST(ErrorTest, TheDetailSurvivesTheWayIntoAStatusAndOut) {
  const absl::Status status = ToStatus(
      Error(Code::kFailedPrecondition, FullDetail(), "Step 9 was sent."));
  EXPECT_THAT(status, Refused(Code::kFailedPrecondition, "STEP_OUT_OF_ORDER"));
  EXPECT_EQ(status.message(), "Step 9 was sent. Send step 7.");
  const auto detail = DetailOf(status);
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->field, "rows.step");
  EXPECT_EQ(detail->row, 3);
  EXPECT_EQ(detail->step, 7);
  EXPECT_EQ(detail->tensor, "observations");
  EXPECT_EQ(detail->hint, "Send step 7.");
}

TEST(ErrorTest, AStatusWithoutDetailHasNone) {
  EXPECT_FALSE(DetailOf(absl::OkStatus()).has_value());
  EXPECT_FALSE(DetailOf(absl::InternalError("x")).has_value());
}

TEST(ErrorTest, AReasonHasOneCodeWhicheverClassCarriesIt) {
  ErrorDetail detail;
  detail.reason = "INFERENCE_ONLY";
  EXPECT_EQ(GradientContractError(detail, "x").code(), Code::kInvalidArgument);
  detail.reason = "NOT_DIFFERENTIABLE";
  EXPECT_EQ(GradientContractError(detail, "x").code(),
            Code::kFailedPrecondition);
  detail.reason = "A_NEW_REASON";
  EXPECT_EQ(Error(Code::kUnimplemented, detail, "x").code(),
            Code::kUnimplemented);
  EXPECT_EQ(CodeOfReason("A_NEW_REASON"), Code::kInternal);
}

TEST(ErrorTest, ClassesOfMisuseNameWhatWasWrong) {
  const ShapeError shape("observations", "float32 [2, 116]", "int64 [2]");
  EXPECT_EQ(shape.code(), Code::kInvalidArgument);
  EXPECT_EQ(shape.reason(), "BAD_SHAPE");
  EXPECT_EQ(shape.detail().tensor, "observations");
  EXPECT_NE(std::string(shape.what()).find("float32 [2, 116], got int64 [2]"),
            std::string::npos);

  const EmptyMaskError empty("op", 4, 2);
  EXPECT_EQ(empty.reason(), "EMPTY_ACTION_MASK");
  EXPECT_EQ(empty.detail().field, "op");
  EXPECT_EQ(empty.detail().row, 4);
  EXPECT_EQ(empty.detail().step, 2);

  const InvalidActionError action("tempo", 1, -1, 9, "is out of range");
  EXPECT_EQ(action.reason(), "INVALID_ACTION");
  EXPECT_NE(std::string(action.what()).find("Action 9 of head tempo in row 1"),
            std::string::npos);

  EXPECT_EQ(NonFiniteError::Input("hidden", 2).code(), Code::kInvalidArgument);
  EXPECT_EQ(NonFiniteError::Logits("op", "1 NaN").code(), Code::kInternal);
}

}  // namespace
}  // namespace esper
