#ifndef ESPER_TESTS_GOLDEN_TRAINING_PARITY_CASES_H_
#define ESPER_TESTS_GOLDEN_TRAINING_PARITY_CASES_H_

#include <functional>
#include <map>
#include <string>

#include "nlohmann/json.hpp"
#include "tests/testing/golden_report.h"

// Checks of the training subsystem's reference vectors. Case counts, numbers
// and options come from the files, so any directory of that layout will do.
namespace esper::testing {

// Checks one parsed file; `name` prefixes the case names.
using JsonCheck = std::function<void(
    const std::string& name, const nlohmann::json& file, GoldenReport* report)>;

// By file name: "rewards_shaped.json" and so on.
const std::map<std::string, JsonCheck>& JsonChecks();

// Checks every file of `directory`, in order of name. A file without a check is
// a skip; so is a JSON case that carries "deviation". A directory without a
// known file, or a file that cannot be parsed, is a failure.
void CheckDirectory(const std::string& directory, GoldenReport* report);

// One file of `directory` by name.
void CheckFile(const std::string& directory, const std::string& name,
               GoldenReport* report);

// The single checks, one source file each.
void CheckRewards(const std::string& name, const nlohmann::json& file,
                  GoldenReport* report);
void CheckLossRewards(const std::string& name, const nlohmann::json& file,
                      GoldenReport* report);
void CheckRewardHelpers(const std::string& name, const nlohmann::json& file,
                        GoldenReport* report);
void CheckEnvironment(const std::string& name, const nlohmann::json& file,
                      GoldenReport* report);

// Tolerance of rewards, governor, tracker and helpers.
inline constexpr double kGoldenTolerance = 1e-9;

// A number, or one of the strings "nan", "inf", "-inf".
double GoldenNumber(const nlohmann::json& value);

// `object[key]` as a number; `fallback` if the key is absent or null.
double NumberOr(const nlohmann::json& object, const std::string& key,
                double fallback);

}  // namespace esper::testing
#endif  // ESPER_TESTS_GOLDEN_TRAINING_PARITY_CASES_H_
