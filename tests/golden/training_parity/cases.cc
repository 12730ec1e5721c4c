#include "tests/golden/training_parity/cases.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <vector>

#include "absl/strings/match.h"

namespace esper::testing {

namespace {

constexpr char kTensors[] = ".safetensors";

std::string StemOf(const std::string& name) {
  return std::filesystem::path(name).stem().string();
}

// A check that reads nothing but the JSON.
JsonCheck Plain(void (*check)(const std::string&, const nlohmann::json&,
                              GoldenReport*)) {
  return [check](const GoldenJson& file, GoldenReport* report) {
    check(file.name, file.content, report);
  };
}

}  // namespace

std::string GoldenJson::TensorPath() const {
  return directory + "/" + StemOf(name) + kTensors;
}

const std::map<std::string, JsonCheck>& JsonChecks() {
  static const auto& checks = *new std::map<std::string, JsonCheck>{
      {"contribution_aux.json", CheckContributionLoss},
      {"environment.json", Plain(CheckEnvironment)},
      {"gae.json", CheckGae},
      {"normalizers.json", CheckNormalizers},
      {"ppo_losses.json", CheckLosses},
      {"ppo_schedules.json", CheckSchedules},
      {"ppo_update.json", CheckUpdates},
      {"rewards_basic.json", Plain(CheckRewards)},
      {"rewards_basic_plus.json", Plain(CheckRewards)},
      {"rewards_escrow.json", Plain(CheckRewards)},
      {"rewards_helpers.json", Plain(CheckRewardHelpers)},
      {"rewards_loss.json", Plain(CheckLossRewards)},
      {"rewards_minimal.json", Plain(CheckRewards)},
      {"rewards_shaped.json", Plain(CheckRewards)},
      {"rewards_simplified.json", Plain(CheckRewards)},
      {"rewards_sparse.json", Plain(CheckRewards)}};
  return checks;
}

void CheckFile(const std::string& directory, const std::string& name,
               GoldenReport* report) {
  std::ifstream stream(directory + "/" + name);
  const GoldenJson file{directory, name,
                        nlohmann::json::parse(stream, nullptr,
                                              /*allow_exceptions=*/false)};
  if (file.content.is_discarded()) {
    GoldenReport::Case(report, name).Fail("cannot be read as JSON");
    return;
  }
  try {
    JsonChecks().at(name)(file, report);
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
    } else if (absl::EndsWith(name, kTensors) &&
               JsonChecks().count(StemOf(name) + ".json") > 0) {
      // Read with its JSON file, which must be there.
      if (!std::binary_search(names.begin(), names.end(),
                              StemOf(name) + ".json")) {
        GoldenReport::Case(report, name).Fail("has no JSON file beside it");
      }
    } else if (absl::EndsWith(name, ".json") ||
               absl::EndsWith(name, kTensors)) {
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

const nlohmann::json& DeviationOf(const nlohmann::json& golden) {
  static const auto& none = *new nlohmann::json(nullptr);
  const auto it = golden.find("deviation");
  return it == golden.end() ? none : *it;
}

std::string DeviationRow(const nlohmann::json& deviation) {
  if (deviation.is_string()) return deviation;
  return deviation.is_object() ? deviation.value("id", "") : "";
}

}  // namespace esper::testing
