#ifndef ESPER_TESTS_TESTING_PARITY_MAIN_H_
#define ESPER_TESTS_TESTING_PARITY_MAIN_H_

#include <functional>
#include <string>

#include "tests/testing/golden_report.h"

namespace esper::testing {

// The main function of a parity runner:
//   bazel run //tests/golden:NAME_parity -- --golden_dir=DIR
// Checks every case in the directory, relative to where the command was given
// (without the flag: `copies`, the vectors in this project), and prints skips,
// failures, and "N passed, N failed[, N skipped]". Returns 1 on any failure.
int ParityMain(
    int argc, char** argv, const std::string& copies,
    const std::function<void(const std::string&, GoldenReport*)>& check);

}  // namespace esper::testing
#endif  // ESPER_TESTS_TESTING_PARITY_MAIN_H_
