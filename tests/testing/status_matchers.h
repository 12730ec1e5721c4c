#ifndef ESPER_TESTS_TESTING_STATUS_MATCHERS_H_
#define ESPER_TESTS_TESTING_STATUS_MATCHERS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/error.h"
#include "gmock/gmock.h"

namespace esper::testing {

inline const absl::Status& GetStatus(const absl::Status& status) {
  return status;
}
template <typename T>
const absl::Status& GetStatus(const absl::StatusOr<T>& status_or) {
  return status_or.status();
}

// Matches a status, or the status of a StatusOr, that is OK.
MATCHER(IsOk, "is OK") {
  *result_listener << GetStatus(arg).ToString();
  return GetStatus(arg).ok();
}

// Matches by code.
MATCHER_P(StatusIs, code, "has the code " + absl::StatusCodeToString(code)) {
  *result_listener << GetStatus(arg).ToString();
  return GetStatus(arg).code() == code;
}

// Matches by code and by the reason of the attached ErrorDetail.
MATCHER_P2(Refused, code, reason,
           "has the code " + absl::StatusCodeToString(code) +
               " and the reason " + std::string(reason)) {
  const absl::Status& status = GetStatus(arg);
  const auto detail = DetailOf(status);
  *result_listener << status.ToString() << ", reason "
                   << (detail ? detail->reason : "none");
  return status.code() == code && detail && detail->reason == reason;
}

}  // namespace esper::testing

#define ASSERT_OK(expression) \
  ASSERT_THAT((expression), ::esper::testing::IsOk())
#define EXPECT_OK(expression) \
  EXPECT_THAT((expression), ::esper::testing::IsOk())

#endif  // ESPER_TESTS_TESTING_STATUS_MATCHERS_H_
