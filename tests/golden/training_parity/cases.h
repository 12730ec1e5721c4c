#ifndef ESPER_TESTS_GOLDEN_TRAINING_PARITY_CASES_H_
#define ESPER_TESTS_GOLDEN_TRAINING_PARITY_CASES_H_

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "tests/testing/golden_report.h"

// Checks of the training subsystem's reference vectors. Case counts, numbers,
// shapes and options come from the files, so any directory of that layout will
// do.
namespace esper::testing {

// One JSON file and where it lies. A file `<stem>.safetensors` beside it holds
// its tensors.
struct GoldenJson {
  std::string directory;
  std::string name;  // "gae.json"; prefixes the case names.
  nlohmann::json content;

  // "<directory>/<stem>.safetensors".
  std::string TensorPath() const;
};

// Checks one parsed file.
using JsonCheck =
    std::function<void(const GoldenJson& file, GoldenReport* report)>;

// By file name: "rewards_shaped.json" and so on.
const std::map<std::string, JsonCheck>& JsonChecks();

// Checks every file of `directory`, in order of name. A file without a check is
// a skip; so is a case whose deviation says nothing that could be checked. A
// directory without a known file, a file that cannot be parsed, tensors without
// their JSON file or the reverse are failures.
void CheckDirectory(const std::string& directory, GoldenReport* report);

// One file of `directory` by name.
void CheckFile(const std::string& directory, const std::string& name,
               GoldenReport* report);

// The single checks, by source file.
// reward_cases.cc
void CheckRewards(const std::string& name, const nlohmann::json& file,
                  GoldenReport* report);
void CheckLossRewards(const std::string& name, const nlohmann::json& file,
                      GoldenReport* report);
void CheckRewardHelpers(const std::string& name, const nlohmann::json& file,
                        GoldenReport* report);
// environment_cases.cc
void CheckEnvironment(const std::string& name, const nlohmann::json& file,
                      GoldenReport* report);
// gae_cases.cc
void CheckGae(const GoldenJson& file, GoldenReport* report);
// normalizer_cases.cc
void CheckNormalizers(const GoldenJson& file, GoldenReport* report);
// loss_cases.cc
void CheckLosses(const GoldenJson& file, GoldenReport* report);
void CheckContributionLoss(const GoldenJson& file, GoldenReport* report);
// schedule_cases.cc
void CheckSchedules(const GoldenJson& file, GoldenReport* report);
// update_cases.cc
void CheckUpdates(const GoldenJson& file, GoldenReport* report);

// Kinds of environment.json that other source files check, one case each.
// diagnostics_cases.cc; the series are one case, step by step.
void CheckGradientHealth(const nlohmann::json& golden,
                         GoldenReport::Case* check);
void CheckGradientRatio(const nlohmann::json& golden,
                        GoldenReport::Case* check);
void CheckLstmHealth(const nlohmann::json& golden, GoldenReport::Case* check);
void CheckAnomaly(const nlohmann::json& golden, GoldenReport::Case* check);
void CheckEnvironmentSeed(const nlohmann::json& golden,
                          GoldenReport::Case* check);
void CheckGradientDrift(const nlohmann::json& series,
                        GoldenReport::Case* check);
void CheckHeadCollapse(const nlohmann::json& series, GoldenReport::Case* check);
// counterfactual_cases.cc
void CheckCounterfactual(const nlohmann::json& golden,
                         GoldenReport::Case* check);
void CheckPairInteraction(const nlohmann::json& golden,
                          GoldenReport::Case* check);

// Tolerance of rewards, governor, tracker and helpers.
inline constexpr double kGoldenTolerance = 1e-9;

// A number, or one of the strings "nan", "inf", "-inf".
double GoldenNumber(const nlohmann::json& value);

// `object[key]` as a number; `fallback` if the key is absent or null.
double NumberOr(const nlohmann::json& object, const std::string& key,
                double fallback);

// The entry of a case that says how ours differs on purpose, null if there is
// none, and its row: "T12".
const nlohmann::json& DeviationOf(const nlohmann::json& golden);
std::string DeviationRow(const nlohmann::json& deviation);

// An array of numbers, nested arrays flattened; booleans are 0 and 1.
template <typename T>
std::vector<T> GoldenNumbers(const nlohmann::json& array) {
  std::vector<T> numbers;
  for (const auto& value : array) {
    if (value.is_array()) {
      for (T inner : GoldenNumbers<T>(value)) numbers.push_back(inner);
    } else if (value.is_boolean()) {
      numbers.push_back(static_cast<T>(value.get<bool>()));
    } else {
      numbers.push_back(static_cast<T>(GoldenNumber(value)));
    }
  }
  return numbers;
}

// Element by element against an array of the file.
template <typename T>
void CheckSeries(const std::string& what, const std::vector<T>& actual,
                 const nlohmann::json& expected, double relative,
                 double absolute, GoldenReport::Case* check) {
  const auto numbers = GoldenNumbers<double>(expected);
  check->Equal(what + " length", actual.size(), numbers.size());
  for (size_t i = 0; i < std::min(actual.size(), numbers.size()); ++i) {
    check->Near(absl::StrCat(what, " ", i), static_cast<double>(actual[i]),
                numbers[i], relative, absolute);
  }
}

// Runs `body` as one case; an exception is a failure.
template <typename Body>
void RunCase(GoldenReport* report, const std::string& name, Body body) {
  GoldenReport::Case check(report, name);
  try {
    body(&check);
  } catch (const std::exception& error) {
    check.Fail(error.what());
  }
}

}  // namespace esper::testing
#endif  // ESPER_TESTS_GOLDEN_TRAINING_PARITY_CASES_H_
