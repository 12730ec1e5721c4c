#include "tests/golden/training_parity/cases.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <vector>

#include "absl/strings/match.h"

namespace esper::testing {

const std::map<std::string, JsonCheck>& JsonChecks() {
  static const auto& checks = *new std::map<std::string, JsonCheck>{
      {"environment.json", CheckEnvironment},
      {"rewards_basic.json", CheckRewards},
      {"rewards_basic_plus.json", CheckRewards},
      {"rewards_escrow.json", CheckRewards},
      {"rewards_helpers.json", CheckRewardHelpers},
      {"rewards_loss.json", CheckLossRewards},
      {"rewards_minimal.json", CheckRewards},
      {"rewards_shaped.json", CheckRewards},
      {"rewards_simplified.json", CheckRewards},
      {"rewards_sparse.json", CheckRewards}};
  return checks;
}

void CheckFile(const std::string& directory, const std::string& name,
               GoldenReport* report) {
  std::ifstream stream(directory + "/" + name);
  const auto file =
      nlohmann::json::parse(stream, nullptr, /*allow_exceptions=*/false);
  if (file.is_discarded()) {
    GoldenReport::Case(report, name).Fail("cannot be read as JSON");
    return;
  }
  try {
    JsonChecks().at(name)(name, file, report);
  } catch (const std::exception& error) {
    GoldenReport::Case(report, name).Fail(error.what());
  }
}

void CheckDirectory(const std::string& directory, GoldenReport* report) {
  std::error_code error;
  std::vector<std::string> names;
  for (const auto& entry :
       std::filesystem::directory_iterator(directory, error)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  bool known = false;
  for (const std::string& name : names) {
    if (JsonChecks().count(name) > 0) {
      known = true;
      CheckFile(directory, name, report);
    } else if (absl::EndsWith(name, ".json") ||
               absl::EndsWith(name, ".safetensors")) {
      report->Skip(name, "this kind of file is not checked yet");
    }
  }
  if (!known) {
    GoldenReport::Case(report, directory)
        .Fail("holds no reference vectors of the training subsystem");
  }
}

double GoldenNumber(const nlohmann::json& value) {
  if (!value.is_string()) return value.get<double>();
  if (value == "nan") return std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  if (value == "inf") return infinity;
  if (value == "-inf") return -infinity;
  throw std::runtime_error("not a number: " + value.dump());
}

double NumberOr(const nlohmann::json& object, const std::string& key,
                double fallback) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return fallback;
  return GoldenNumber(*it);
}

}  // namespace esper::testing
