#include "core/error.h"

#include <map>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace esper {
namespace {

constexpr char kPayloadUrl[] = "esper.v1.ErrorDetail";

ErrorDetail Detail(std::string reason, std::string tensor, std::string hint) {
  ErrorDetail detail;
  detail.reason = std::move(reason);
  detail.tensor = std::move(tensor);
  detail.hint = std::move(hint);
  return detail;
}

ErrorDetail HeadDetail(std::string reason, const std::string& head, int64_t row,
                       int64_t step, std::string hint) {
  ErrorDetail detail = Detail(std::move(reason), "", std::move(hint));
  detail.field = head;
  detail.row = row;
  detail.step = step;
  return detail;
}

std::string Position(int64_t row, int64_t step) {
  std::string position;
  if (row >= 0) absl::StrAppend(&position, " in row ", row);
  if (step >= 0) absl::StrAppend(&position, " at step ", step);
  return position;
}

std::string Sentence(const std::string& message, const std::string& hint) {
  return hint.empty() ? message : absl::StrCat(message, " ", hint);
}

absl::Status WithDetail(absl::Status status, const ErrorDetail& detail) {
  const nlohmann::json payload = {
      {"reason", detail.reason}, {"field", detail.field},
      {"row", detail.row},       {"step", detail.step},
      {"tensor", detail.tensor}, {"hint", detail.hint}};
  status.SetPayload(kPayloadUrl, absl::Cord(payload.dump()));
  return status;
}

// The code that the design gives to a reason, or `otherwise` for a reason that
// it does not list.
absl::StatusCode DesignedCode(const std::string& reason,
                              absl::StatusCode otherwise) {
  using Code = absl::StatusCode;
  static const auto& codes = *new std::map<std::string, Code>{
      {"UNKNOWN_EPISODE", Code::kNotFound},
      {"EPISODE_EXPIRED", Code::kFailedPrecondition},
      {"WRONG_INCARNATION", Code::kFailedPrecondition},
      {"STEP_OUT_OF_ORDER", Code::kFailedPrecondition},
      {"MALFORMED_REQUEST", Code::kInvalidArgument},
      {"BAD_SHAPE", Code::kInvalidArgument},
      {"BAD_STATE", Code::kInvalidArgument},
      {"BAD_FLOOR", Code::kInvalidArgument},
      {"BAD_BLUEPRINT_INDEX", Code::kInvalidArgument},
      {"BAD_BEHAVIOUR", Code::kInvalidArgument},
      {"NONFINITE_INPUT", Code::kInvalidArgument},
      {"EMPTY_ACTION_MASK", Code::kInvalidArgument},
      {"INVALID_ACTION", Code::kInvalidArgument},
      {"INFERENCE_ONLY", Code::kInvalidArgument},
      {"POLICY_TERM_MISSING", Code::kInvalidArgument},
      {"UNTRAINED_OUTPUT", Code::kInvalidArgument},
      {"NOT_DIFFERENTIABLE", Code::kFailedPrecondition},
      {"EVALUATION_EXPIRED", Code::kFailedPrecondition},
      {"SPEC_MISMATCH", Code::kFailedPrecondition},
      {"BEHAVIOUR_MISMATCH", Code::kFailedPrecondition},
      {"STALE_BEHAVIOUR", Code::kFailedPrecondition},
      {"UNKNOWN_VERSION", Code::kFailedPrecondition},
      {"MASK_MISMATCH", Code::kFailedPrecondition},
      {"TRAINING_DIVERGED", Code::kFailedPrecondition},
      {"STALE_LEASE", Code::kAborted},
      {"QUEUE_FULL", Code::kUnavailable},
      {"DRAINING", Code::kUnavailable},
      {"BUDGET_EXCEEDED", Code::kResourceExhausted},
      {"FOLLOWER", Code::kFailedPrecondition},
      {"NOT_READY", Code::kUnavailable},
      {"CORRUPT_VERSION", Code::kDataLoss},
      {"CORRUPT_CHECKPOINT", Code::kDataLoss},
      {"CORRUPT_RECORDING", Code::kDataLoss},
      {"INCOMPLETE_RECORDING", Code::kFailedPrecondition},
      {"UNKNOWN_CHECKPOINT", Code::kNotFound},
      {"NONFINITE_LOGITS", Code::kInternal},
  };
  const auto it = codes.find(reason);
  return it == codes.end() ? otherwise : it->second;
}

}  // namespace

Error::Error(absl::StatusCode code, ErrorDetail detail,
             const std::string& message)
    // A reason has one code everywhere, whichever class carries it.
    : code_(DesignedCode(detail.reason, code)),
      detail_(std::move(detail)),
      what_(Sentence(message, detail_.hint)) {}

ShapeError::ShapeError(const std::string& tensor, const std::string& expected,
                       const std::string& actual)
    : Error(
          absl::StatusCode::kInvalidArgument,
          Detail("BAD_SHAPE", tensor,
                 "Send the shape that the policy's "
                 "specification gives."),
          absl::StrCat(tensor, " must be ", expected, ", got ", actual, ".")) {}

NonFiniteError NonFiniteError::Input(const std::string& tensor, int64_t row,
                                     int64_t step) {
  ErrorDetail detail =
      Detail("NONFINITE_INPUT", tensor, "Send finite numbers only.");
  detail.row = row;
  detail.step = step;
  return NonFiniteError(
      absl::StatusCode::kInvalidArgument, std::move(detail),
      absl::StrCat(tensor, " holds NaN or infinity", Position(row, step), "."));
}

NonFiniteError NonFiniteError::Logits(const std::string& head,
                                      const std::string& statistics) {
  ErrorDetail detail = Detail("NONFINITE_LOGITS", absl::StrCat("logits.", head),
                              "Restore a checkpoint with finite weights.");
  detail.field = head;
  return NonFiniteError(
      absl::StatusCode::kInternal, std::move(detail),
      absl::StrCat("The network made non-finite logits for head ", head, " (",
                   statistics, ")."));
}

EmptyMaskError::EmptyMaskError(const std::string& head, int64_t row,
                               int64_t step)
    : Error(absl::StatusCode::kInvalidArgument,
            HeadDetail("EMPTY_ACTION_MASK", head, row, step,
                       "Allow at least one action of every head that the "
                       "chosen driver action uses."),
            absl::StrCat("The action mask of head ", head, " allows no action",
                         Position(row, step), ".")) {}

InvalidActionError::InvalidActionError(const std::string& head, int64_t row,
                                       int64_t step, int64_t value,
                                       const std::string& why)
    : Error(absl::StatusCode::kInvalidArgument,
            HeadDetail("INVALID_ACTION", head, row, step,
                       "Send the actions that GetAction returned, with the "
                       "masks they were drawn under."),
            absl::StrCat("Action ", value, " of head ", head,
                         Position(row, step), " ", why, ".")) {}

absl::Status MakeStatus(absl::StatusCode code, const ErrorDetail& detail,
                        const std::string& message) {
  return WithDetail(absl::Status(code, Sentence(message, detail.hint)), detail);
}

absl::Status ToStatus(const Error& error) {
  return WithDetail(absl::Status(error.code(), error.what()), error.detail());
}

std::optional<ErrorDetail> DetailOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayloadUrl);
  if (!payload.has_value()) return std::nullopt;
  const auto json = nlohmann::json::parse(std::string(*payload), nullptr,
                                          /*allow_exceptions=*/false);
  if (json.is_discarded()) return std::nullopt;
  ErrorDetail detail;
  detail.reason = json.value("reason", "");
  detail.field = json.value("field", "");
  detail.row = json.value("row", int64_t{-1});
  detail.step = json.value("step", int64_t{-1});
  detail.tensor = json.value("tensor", "");
  detail.hint = json.value("hint", "");
  return detail;
}

absl::StatusCode CodeOfReason(const std::string& reason) {
  return DesignedCode(reason, absl::StatusCode::kInternal);
}

}  // namespace esper
