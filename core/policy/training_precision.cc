#include "core/policy/training_precision.h"

#include "absl/strings/str_cat.h"
#include "core/error.h"

namespace esper::policy {

const char* TrainingPrecisionName(TrainingPrecision precision) {
  return precision == TrainingPrecision::kBf16 ? "bf16" : "fp32";
}

absl::StatusOr<TrainingPrecision> ParseTrainingPrecision(
    const std::string& text) {
  if (text == "fp32") return TrainingPrecision::kFp32;
  if (text == "bf16") return TrainingPrecision::kBf16;
  ErrorDetail detail;
  detail.reason = "MALFORMED_REQUEST";
  detail.field = "training_precision";
  return MakeStatus(absl::StatusCode::kInvalidArgument, detail,
                    absl::StrCat("training_precision is \"", text,
                                 "\"; it must be fp32 or bf16."));
}

}  // namespace esper::policy
