#include <set>
#include <string>

#include "absl/strings/str_join.h"
#include "core/slot/gates.h"
#include "tests/golden/slots_parity/cases.h"
#include "tests/golden/slots_parity/checks.h"

namespace esper::testing {
namespace {

using nlohmann::json;

std::optional<double> NumberOf(const json& inputs, const char* key) {
  if (!inputs.contains(key) || inputs[key].is_null()) return std::nullopt;
  return GoldenNumber(inputs[key]);
}

slot::GateInputs InputsOf(const json& test) {
  const json& given = test.at("inputs");
  slot::GateInputs inputs;
  inputs.seed_id = given.value("seed_id", "s");
  inputs.blueprint_id = given.value("blueprint_id", "norm");
  inputs.stage = StageByName(test.at("stage"));
  inputs.epochs_in_stage = given.value("epochs_in_current_stage", int64_t{0});
  inputs.improvement_since_stage_start =
      GoldenNumber(test.at("improvement_since_stage_start"));
  inputs.contribution = NumberOf(given, "counterfactual_contribution");
  inputs.gradient_ratio = NumberOf(given, "seed_gradient_norm_ratio");
  inputs.gradient_health = NumberOf(given, "gradient_health");
  inputs.exploding = given.value("has_exploding", false);
  inputs.alpha.alpha = NumberOf(given, "alpha").value_or(0);
  inputs.alpha.target = NumberOf(given, "alpha_target").value_or(0);
  inputs.alpha.mode =
      static_cast<slot::AlphaMode>(given.value("alpha_mode", 0));
  inputs.healthy = given.value("is_healthy", true);
  return inputs;
}

void CompareChecks(GoldenReport::Case& test, const char* which,
                   const std::vector<std::string>& actual,
                   const json& expected) {
  test.Equal(which, absl::StrJoin(CheckNames(actual), " "),
             absl::StrJoin(CheckNames(expected), " "));
}

}  // namespace

void CheckGates(const json& file, GoldenReport* report) {
  for (const json& row : file.at("cases")) {
    const bool permissive = row.at("permissive");
    const std::string name = "gates/" + row.at("name").get<std::string>() +
                             (permissive ? "/permissive" : "/strict");
    if (row.contains("deviation") && !row["deviation"].is_null()) {
      report->Skip(name, row["deviation"].dump());
      continue;
    }
    GoldenReport::Case test(report, name);
    const slot::GatePolicy policy(permissive ? slot::GateProfile::kPermissive
                                             : slot::GateProfile::kStrict);
    const auto result = policy.Evaluate(StageByName(row.at("target_stage")),
                                        InputsOf(row), absl::UnixEpoch());
    const json& expected = row.at("expected");
    if (!expected.contains("gate")) {
      test.Equal("refused", !result.ok(), true);
      continue;
    }
    if (!result.ok()) {
      test.Fail(result.status().ToString());
      continue;
    }
    test.Equal("gate", static_cast<int>(result->level),
               expected.at("gate").get<int>());
    test.Equal("passed", result->passed, expected.at("passed").get<bool>());
    test.Near("score", result->score, GoldenNumber(expected.at("score")), 0,
              1e-9);
    CompareChecks(test, "passed checks", result->checks_passed,
                  expected.at("checks_passed"));
    CompareChecks(test, "failed checks", result->checks_failed,
                  expected.at("checks_failed"));
  }
}

}  // namespace esper::testing
