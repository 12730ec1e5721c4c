#ifndef ESPER_TESTS_GOLDEN_POLICY_PARITY_CASES_H_
#define ESPER_TESTS_GOLDEN_POLICY_PARITY_CASES_H_

#include <string>

#include "tests/testing/golden_report.h"

namespace esper::testing {

// Checks every reference file of the policy in `directory`. Networks are those
// that files are named after, "<net>.forward.safetensors" and so on, with any
// number of slots, width, depth, rows and steps. A file of unknown kind is a
// skip. Failures: a directory without a file of known kind, a file that cannot
// be read, and a tensor of a checked file that is missing or unread.
void CheckPolicyDirectory(const std::string& directory, GoldenReport* report);

}  // namespace esper::testing
#endif  // ESPER_TESTS_GOLDEN_POLICY_PARITY_CASES_H_
