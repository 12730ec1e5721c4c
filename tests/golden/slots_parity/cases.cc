#include "tests/golden/slots_parity/cases.h"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <fstream>
#include <limits>
#include <vector>

namespace esper::testing {
namespace {

namespace fs = std::filesystem;

bool IsKnown(const std::string& name) {
  return name == "alpha_controller.json" || name == "gates.json" ||
         name == "lifecycle.json" || name == "blend_ops.json";
}

void CheckFile(const fs::path& path, GoldenReport* report) {
  const std::string name = path.filename().string();
  try {
    std::ifstream stream(path);
    const auto file = nlohmann::json::parse(stream);
    if (file.at("format") != 1) throw std::out_of_range("format is not 1");
    if (name == "alpha_controller.json") {
      CheckAlphaController(file, report);
    } else if (name == "gates.json") {
      CheckGates(file, report);
    } else if (name == "lifecycle.json") {
      CheckLifecycle(file, report);
    } else {
      CheckBlends(file, (path.parent_path() / "blend_ops.safetensors").string(),
                  report);
    }
  } catch (const std::exception& error) {
    GoldenReport::Case(report, name).Fail(error.what());
  }
}

}  // namespace

double GoldenNumber(const nlohmann::json& value) {
  if (!value.is_string()) return value.get<double>();
  const std::string text = value;
  if (text == "nan") return std::numeric_limits<double>::quiet_NaN();
  if (text == "inf") return std::numeric_limits<double>::infinity();
  if (text == "-inf") return -std::numeric_limits<double>::infinity();
  throw std::out_of_range("number " + text);
}

void CheckDirectory(const std::string& directory, GoldenReport* report) {
  std::error_code error;
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    if (entry.is_regular_file()) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  int known = 0;
  for (const fs::path& path : paths) {
    const std::string name = path.filename().string();
    if (IsKnown(name)) {
      ++known;
      CheckFile(path, report);
    } else if (name != "blend_ops.safetensors" && name != "README.md" &&
               name != "BUILD") {
      report->Skip(name, "no check for this file");
    }
  }
  if (known == 0) {
    GoldenReport::Case(report, directory).Fail("no known file");
  }
}

}  // namespace esper::testing
