// Checks the policy against the reference vectors of a directory:
//   bazel run //tests/golden:policy_parity -- --golden_dir=DIR
// Prints skips and failures, then "N passed, N failed", and ", N skipped" if
// any; exits non-zero on any failure.
#include <ATen/Parallel.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "tests/golden/policy_parity/cases.h"

ABSL_FLAG(std::string, golden_dir, "",
          "Directory of reference vectors, relative to where the command was "
          "given; empty: the copies in tests/golden/policy.");

namespace {

constexpr char kCopies[] = "tests/golden/policy";

// `bazel run` starts elsewhere than where its command was given.
std::string Resolve(const std::string& directory) {
  if (directory.empty()) return kCopies;
  const char* caller = std::getenv("BUILD_WORKING_DIRECTORY");
  if (caller == nullptr) return directory;
  return (std::filesystem::path(caller) / directory).string();
}

}  // namespace

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  at::set_num_threads(1);
  esper::testing::GoldenReport report;
  esper::testing::CheckPolicyDirectory(Resolve(absl::GetFlag(FLAGS_golden_dir)),
                                       &report);
  for (const std::string& skip : report.skips()) {
    std::cout << "SKIPPED " << skip << "\n";
  }
  for (const std::string& failure : report.failures()) {
    std::cout << "FAILED " << failure << "\n";
  }
  std::cout << report.passed() << " passed, " << report.failures().size()
            << " failed";
  if (!report.skips().empty()) {
    std::cout << ", " << report.skips().size() << " skipped";
  }
  std::cout << std::endl;
  return report.failures().empty() ? 0 : 1;
}
