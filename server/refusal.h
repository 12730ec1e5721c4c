#ifndef ESPER_SERVER_REFUSAL_H_
#define ESPER_SERVER_REFUSAL_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/error.h"

namespace esper::server {

// A refusal by its reason, which fixes the code (`CodeOfReason`). `message` is
// a sentence that says what was wrong, `hint` one that says what to do; `field`
// may be empty, `row` and `step` -1.
inline absl::Status Refuse(const std::string& reason, const std::string& field,
                           const std::string& message, const std::string& hint,
                           int64_t row = -1, int64_t step = -1) {
  ErrorDetail detail;
  detail.reason = reason;
  detail.field = field;
  detail.row = row;
  detail.step = step;
  detail.hint = hint;
  return MakeStatus(CodeOfReason(reason), detail, message);
}

// The same for one row of a batch, which the sentence then begins with; -1: the
// whole call.
inline absl::Status RefuseRow(const std::string& reason,
                              const std::string& field, int64_t row,
                              const std::string& message,
                              const std::string& hint, int64_t step = -1) {
  const std::string sentence =
      row < 0 ? message : absl::StrCat("Row ", row, ": ", message);
  return Refuse(reason, field, sentence, hint, row, step);
}

}  // namespace esper::server
#endif  // ESPER_SERVER_REFUSAL_H_
