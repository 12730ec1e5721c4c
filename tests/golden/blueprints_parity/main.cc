// Checks the reference vectors of a directory:
//   bazel run //tests/golden:blueprints_parity -- --golden_dir=DIR
// Prints failures and skips, then "N passed, N failed, N skipped"; exits
// non-zero on any failure.
#include <ATen/Parallel.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "tests/golden/blueprints_parity/cases.h"

ABSL_FLAG(std::string, golden_dir, "tests/golden/blueprints",
          "Directory of reference vectors.");

namespace {

// `bazel run` starts elsewhere: a relative path means the caller's directory
// if it exists there.
std::string Resolve(const std::string& directory) {
  const char* caller = std::getenv("BUILD_WORKING_DIRECTORY");
  if (caller == nullptr) return directory;
  const auto from_caller = std::filesystem::path(caller) / directory;
  return std::filesystem::exists(from_caller) ? from_caller.string()
                                              : directory;
}

}  // namespace

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  at::set_num_threads(1);
  esper::testing::GoldenReport report;
  esper::testing::CheckBlueprintDirectory(
      Resolve(absl::GetFlag(FLAGS_golden_dir)), &report);
  for (const std::string& skip : report.skips()) {
    std::cout << "SKIPPED " << skip << "\n";
  }
  for (const std::string& failure : report.failures()) {
    std::cout << "FAILED " << failure << "\n";
  }
  std::cout << report.Summary() << std::endl;
  return report.failures().empty() ? 0 : 1;
}
