#ifndef ESPER_CORE_ERROR_H_
#define ESPER_CORE_ERROR_H_

#include <cstdint>
#include <exception>
#include <optional>
#include <string>

#include "absl/status/status.h"

namespace esper {

// What a refusal says besides its code and its sentence, so that a program can
// act on it. Travels unchanged from the throw to the client, where it is the
// message esper.v1.ErrorDetail.
struct ErrorDetail {
  std::string reason;  // Stable, upper case: "BAD_SHAPE", "INVALID_ACTION".
  std::string field;   // Request field or head at fault; empty if none.
  int64_t row = -1;    // Row of the batch; -1 if the fault is in no one row.
  int64_t step = -1;   // Step inside the row; -1 if it has none.
  std::string tensor;  // Tensor at fault; empty if none.
  std::string hint;    // What the caller should do instead.
};

// The one exception type that our own code throws. Tensor code, where a Status
// cannot travel, throws it for a caller's mistake; the service boundary turns
// it into a status by `ToStatus`. `message` is a whole sentence that names what
// was wrong; the hint is appended to what().
class Error : public std::exception {
 public:
  Error(absl::StatusCode code, ErrorDetail detail, const std::string& message);

  const char* what() const noexcept override { return what_.c_str(); }
  absl::StatusCode code() const { return code_; }
  const ErrorDetail& detail() const { return detail_; }
  const std::string& reason() const { return detail_.reason; }

 private:
  absl::StatusCode code_;
  ErrorDetail detail_;
  std::string what_;
};

// Classes of misuse that callers tell apart. Each fixes code and reason.

// BAD_SHAPE: a tensor's shape or dtype. INVALID_ARGUMENT.
class ShapeError : public Error {
 public:
  ShapeError(const std::string& tensor, const std::string& expected,
             const std::string& actual);
};

// NONFINITE_INPUT (INVALID_ARGUMENT) for what a caller sent, or
// NONFINITE_LOGITS (INTERNAL) for what the network made of finite input.
class NonFiniteError : public Error {
 public:
  static NonFiniteError Input(const std::string& tensor, int64_t row = -1,
                              int64_t step = -1);
  static NonFiniteError Logits(const std::string& head,
                               const std::string& statistics);

 private:
  using Error::Error;
};

// EMPTY_ACTION_MASK: no allowed entry for a head that needs one.
class EmptyMaskError : public Error {
 public:
  EmptyMaskError(const std::string& head, int64_t row, int64_t step = -1);
};

// INVALID_ACTION: out of range, or disallowed by the mask in force.
class InvalidActionError : public Error {
 public:
  InvalidActionError(const std::string& head, int64_t row, int64_t step,
                     int64_t value, const std::string& why);
};

// BAD_BLUEPRINT_INDEX, BAD_FLOOR, ...: an argument outside its range.
class InvalidArgumentError : public Error {
 public:
  InvalidArgumentError(ErrorDetail detail, const std::string& message)
      : Error(absl::StatusCode::kInvalidArgument, std::move(detail), message) {}
};

// INFERENCE_ONLY, NOT_DIFFERENTIABLE, ...: inference results used to train, or
// training called where no gradient can flow.
class GradientContractError : public Error {
 public:
  GradientContractError(ErrorDetail detail, const std::string& message)
      : Error(absl::StatusCode::kFailedPrecondition, std::move(detail),
              message) {}
};

// The error as a status; `DetailOf` gets the detail back out of it.
absl::Status ToStatus(const Error& error);
absl::Status MakeStatus(absl::StatusCode code, const ErrorDetail& detail,
                        const std::string& message);
std::optional<ErrorDetail> DetailOf(const absl::Status& status);

// The code that the design gives to a reason, for raising by reason alone:
// "QUEUE_FULL" -> UNAVAILABLE. Unknown reasons are INTERNAL.
absl::StatusCode CodeOfReason(const std::string& reason);

}  // namespace esper
#endif  // ESPER_CORE_ERROR_H_
