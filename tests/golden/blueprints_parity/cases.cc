#include "tests/golden/blueprints_parity/cases.h"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <vector>

#include "absl/strings/str_cat.h"

namespace esper::testing {
namespace {

namespace fs = std::filesystem;

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() &&
         text.compare(text.size() - end.size(), end.size(), end) == 0;
}

bool IsKnown(const std::string& name) {
  return EndsWith(name, "_slots.safetensors") ||
         EndsWith(name, "_hosts.safetensors");
}

}  // namespace

void CheckVectors(const std::string& name, Vectors& vectors,
                  GoldenReport* report) {
  if (EndsWith(name, "_slots.safetensors")) {
    CheckSlots(vectors, report);
  } else {
    CheckHosts(vectors, report);
  }
  GoldenCase all(report, name + " is read to the end");
  const std::vector<std::string> unread = vectors.Unread();
  if (unread.empty()) return;
  all.Fail(
      absl::StrCat(unread.size(), " tensors unread, such as ", unread.front()));
}

void CheckBlueprintDirectory(const std::string& directory,
                             GoldenReport* report) {
  std::error_code error;
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    if (entry.is_regular_file()) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  int known = 0;
  for (const fs::path& path : paths) {
    const std::string name = path.filename().string();
    if (!IsKnown(name)) {
      if (name != "README.md" && name != "BUILD") {
        report->Skip(name, "no check for this file");
      }
      continue;
    }
    ++known;
    try {
      const auto file = tensor::ReadSafetensors(path.string());
      if (!file.ok()) throw std::runtime_error(file.status().ToString());
      Vectors vectors(*file);
      CheckVectors(name, vectors, report);
    } catch (const std::exception& problem) {
      GoldenCase(report, name).Fail(problem.what());
    }
  }
  if (known == 0) GoldenCase(report, directory).Fail("no known file");
}

}  // namespace esper::testing
