#include <string>
#include <vector>

#include "ATen/ops/tensor.h"
#include "core/policy/policy_spec.h"
#include "core/ppo/diagnostics.h"
#include "core/ppo/schedule.h"
#include "tests/golden/training_parity/cases.h"
#include "tests/golden/training_parity/head_tables.h"

namespace esper::testing {
namespace {

using nlohmann::json;

double ScheduleValue(const json& golden) {
  const std::string kind = golden.at("kind");
  const auto number = [&](const char* key) {
    return GoldenNumber(golden.at(key));
  };
  if (kind == "entropy_coef") {
    ppo::EntropySchedule schedule;
    schedule.fixed = number("fixed");
    schedule.start = NumberOr(golden, "start", schedule.fixed);
    schedule.end = NumberOr(golden, "end", schedule.fixed);
    schedule.anneal_updates = golden.at("anneal_steps");
    schedule.minimum = number("minimum");
    return schedule.At(golden.at("train_steps"));
  }
  if (kind == "value_coef") {
    ppo::ValueSchedule schedule;
    schedule.target = number("target");
    schedule.start = NumberOr(golden, "start", 0.1 * schedule.target);
    schedule.warmup_updates = golden.at("warmup_steps");
    return schedule.At(golden.at("train_steps"));
  }
  if (kind == "floor_penalty_factor") {
    return ppo::FloorPenaltyFactor(number("progress"));
  }
  if (kind != "aux_coef") throw std::runtime_error("unknown kind " + kind);
  ppo::ContributionSchedule schedule;
  schedule.coefficient = number("coef");
  schedule.warmup_updates = golden.at("warmup");
  return schedule.At(golden.at("aux_training_step"));
}

void CheckSchedule(const json& golden, GoldenReport::Case* check) {
  check->Near(golden.at("kind"), ScheduleValue(golden),
              GoldenNumber(golden.at("value")), kGoldenTolerance,
              kGoldenTolerance);
}

void CheckFit(const std::string& what, const ppo::Fit& fit,
              const json& expected, GoldenReport::Case* check) {
  const std::pair<const char*, double> numbers[] = {
      {"explained_variance", fit.explained_variance},
      {"value_nrmse", fit.nrmse},
      {"variance", fit.variance}};
  for (const auto& [name, value] : numbers) {
    check->Near(absl::StrCat(what, " ", name), value,
                GoldenNumber(expected.at(name)), 1e-3, 1e-4);
  }
  check->Equal(what + " low", fit.low, expected.at("low").get<bool>());
}

void CheckValueDiagnostics(const json& golden, GoldenReport::Case* check) {
  const auto values = GoldenNumbers<float>(golden.at("values"));
  const auto returns = GoldenNumbers<float>(golden.at("returns"));
  const auto td_errors = GoldenNumbers<float>(golden.at("td_errors"));
  const ppo::ValueMetrics m =
      ppo::ComputeValueMetrics(values, returns, td_errors);
  const json& expected = golden.at("metrics");
  std::map<std::string, double> metrics = {
      {"td_error_mean", m.td_mean},          {"td_error_std", m.td_deviation},
      {"bellman_error", m.bellman_error},    {"return_p10", m.return_p10},
      {"return_p50", m.return_p50},          {"return_p90", m.return_p90},
      {"return_variance", m.return_variance}};
  // Those of equal returns hang on rounding.
  const bool constant =
      std::all_of(returns.begin(), returns.end(),
                  [&](float r) { return r == returns.front(); });
  if (!constant) {
    metrics["v_return_correlation"] = m.correlation;
    metrics["return_skewness"] = m.return_skewness;
  }
  for (const auto& [name, value] : metrics) {
    check->Near(name, value, GoldenNumber(expected.at(name)), 1e-3, 1e-4);
  }
  CheckFit("floored",
           ppo::ComputeFit(values, returns,
                           GoldenNumber(golden.at("floored").at("floor"))),
           golden.at("floored"), check);
  const json& aux = golden.at("aux");
  CheckFit("aux",
           ppo::ComputeFit(values, returns,
                           ppo::RelativeVarianceFloor(
                               returns, GoldenNumber(aux.at("fraction")),
                               GoldenNumber(aux.at("minimum")))),
           aux, check);
}

// A table row, bool [1, 8], against the heads of an object.
void CheckHeads(const at::Tensor& row, const json& expected,
                GoldenReport::Case* check) {
  for (int k = 0; k < 8; ++k) {
    check->Equal(kHeads[k], row[0][k].item<bool>(),
                 expected.at(kHeads[k]).get<bool>());
  }
}

void CheckCausal(const json& golden, GoldenReport::Case* check) {
  CheckHeads(
      HeadTables().Relevance(at::tensor({golden.at("op").get<int64_t>()})),
      golden.at("causal"), check);
}

void CheckAvailability(const json& golden, GoldenReport::Case* check) {
  const at::Tensor mask =
      at::tensor(GoldenNumbers<int64_t>(golden.at("op_mask"))).unsqueeze(0);
  CheckHeads(HeadTables().Availability(mask), golden.at("availability"), check);
}

}  // namespace

void CheckSchedules(const GoldenJson& file, GoldenReport* report) {
  using CaseCheck = void (*)(const json&, GoldenReport::Case*);
  const std::map<std::string, CaseCheck> checks = {
      {"availability_masks", CheckAvailability},
      {"causal_masks", CheckCausal},
      {"schedules", CheckSchedule},
      {"value_diagnostics", CheckValueDiagnostics}};
  for (const auto& [kind, cases] : file.content.items()) {
    const std::string prefix = absl::StrCat(file.name, "/", kind);
    if (kind == "format") continue;
    if (kind == "default_entropy_coef_per_head") {
      RunCase(report, prefix, [&](GoldenReport::Case* check) {
        for (const policy::HeadSpec& head :
             policy::PolicySpec::NetworkGrowing().heads) {
          check->Near(head.name, head.entropy_coef,
                      GoldenNumber(cases.at(head.name)), kGoldenTolerance, 0);
        }
      });
      continue;
    }
    const auto it = checks.find(kind);
    if (it == checks.end()) {
      report->Skip(prefix, "this kind of case is not checked yet");
      continue;
    }
    int index = 0;
    for (const json& golden : cases) {
      RunCase(report, absl::StrCat(prefix, "/", index++),
              [&](GoldenReport::Case* check) { it->second(golden, check); });
    }
  }
}

}  // namespace esper::testing
