#include "tests/testing/parity_main.h"

#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"

ABSL_FLAG(std::string, golden_dir, "",
          "Directory of reference vectors, relative to where the command was "
          "given; empty: the copies in this project.");

namespace esper::testing {
namespace {

// `bazel run` starts elsewhere than where its command was given.
std::string Resolve(const std::string& directory) {
  const char* caller = std::getenv("BUILD_WORKING_DIRECTORY");
  if (caller == nullptr) return directory;
  return (std::filesystem::path(caller) / directory).string();
}

}  // namespace

int ParityMain(
    int argc, char** argv, const std::string& copies,
    const std::function<void(const std::string&, GoldenReport*)>& check) {
  absl::ParseCommandLine(argc, argv);
  const std::string given = absl::GetFlag(FLAGS_golden_dir);
  GoldenReport report;
  check(given.empty() ? copies : Resolve(given), &report);
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

}  // namespace esper::testing
