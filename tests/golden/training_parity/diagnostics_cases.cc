#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "ATen/ops/tensor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "core/ppo/anomaly.h"
#include "core/ppo/environment_seed.h"
#include "core/ppo/lstm_health.h"
#include "core/slot/gradient_monitor.h"
#include "tests/golden/training_parity/cases.h"

namespace esper::testing {
namespace {

using nlohmann::json;

constexpr double kRelative = 1e-3;  // Of diagnostics, as the README has it.
constexpr double kAbsolute = 1e-4;

// Names in any order.
void CheckNames(std::vector<std::string> actual, const json& expected,
                GoldenReport::Case* check) {
  auto names = expected.get<std::vector<std::string>>();
  std::sort(names.begin(), names.end());
  std::sort(actual.begin(), actual.end());
  check->Equal<std::string>("anomalies", absl::StrJoin(actual, ","),
                            absl::StrJoin(names, ","));
}

// [L][B][H] nested arrays.
at::Tensor StateOf(const json& rows) {
  const auto layers = static_cast<int64_t>(rows.size());
  const auto batch = static_cast<int64_t>(rows.at(0).size());
  return at::tensor(GoldenNumbers<float>(rows)).reshape({layers, batch, -1});
}

}  // namespace

void CheckGradientHealth(const json& golden, GoldenReport::Case* check) {
  std::vector<at::Tensor> parameters;
  for (const json& gradient : golden.at("gradients")) {
    const at::Tensor values = at::tensor(GoldenNumbers<float>(gradient));
    at::Tensor parameter = values.clone().set_requires_grad(true);
    parameter.mutable_grad() = values;
    parameters.push_back(parameter);
  }
  const slot::GradientSample sample = slot::SampleGradients(parameters);
  const double* norms = sample.norms.const_data_ptr<double>();
  const slot::GradientReading reading =
      slot::HealthOf({norms, norms + sample.norms.numel()});
  // Absent where the total is not finite.
  if (reading.seed_norm.has_value()) {
    check->Near("gradient_norm", *reading.seed_norm,
                GoldenNumber(golden.at("gradient_norm")), kRelative, kAbsolute);
  }
  check->Near("gradient_health", reading.health.value_or(-1),
              GoldenNumber(golden.at("gradient_health")), kRelative, kAbsolute);
  check->Equal("has_vanishing", reading.has_vanishing.value_or(false),
               golden.at("has_vanishing").get<bool>());
  check->Equal("has_exploding", reading.has_exploding.value_or(false),
               golden.at("has_exploding").get<bool>());
}

void CheckGradientRatio(const json& golden, GoldenReport::Case* check) {
  const auto ratio = slot::GradientRatio(
      GoldenNumber(golden.at("seed_norm")), golden.at("seed_params"),
      GoldenNumber(golden.at("host_norm")), golden.at("host_params"));
  // The reference's trainer does not clamp; ours has the slot's limit.
  check->Near(
      "ratio", ratio.value_or(-1),
      std::min(GoldenNumber(golden.at("ratio")), slot::kMaxGradientRatio),
      kGoldenTolerance, kGoldenTolerance);
}

void CheckGradientDrift(const json& series, GoldenReport::Case* check) {
  slot::GradientDrift drift;
  int step = 0;
  for (const json& golden : series) {
    const std::string prefix = absl::StrCat("step ", step++, " ");
    const auto result = drift.Update(GoldenNumber(golden.at("norm")),
                                     GoldenNumber(golden.at("health")));
    if (!result.has_value()) {
      check->Fail(prefix + "was refused");
      continue;
    }
    const std::pair<const char*, double> numbers[] = {
        {"norm_drift", result->norm},
        {"health_drift", result->health},
        {"ema_grad_norm", drift.average_norm()},
        {"ema_grad_health", drift.average_health()}};
    for (const auto& [name, value] : numbers) {
      check->Near(prefix + name, value, GoldenNumber(golden.at(name)),
                  kRelative, kAbsolute);
    }
  }
}

void CheckLstmHealth(const json& golden, GoldenReport::Case* check) {
  const ppo::LstmHealth health =
      ppo::MeasureLstm(StateOf(golden.at("h")), StateOf(golden.at("c")));
  const json& metrics = golden.at("metrics");
  const auto part = [&](const std::string& name, const ppo::StateSize& size) {
    const std::pair<const char*, double> numbers[] = {
        {"_l2_total", size.l2},
        {"_rms", size.rms},
        {"_env_rms_mean", size.row_rms_mean},
        {"_env_rms_max", size.row_rms_max},
        {"_max", size.max}};
    for (const auto& [suffix, value] : numbers) {
      const std::string key = "lstm_" + name + suffix;
      check->Near(key, value, GoldenNumber(metrics.at(key)), kRelative,
                  kAbsolute);
    }
  };
  if (!health.has_nan && !health.has_inf) {
    part("h", health.h);
    part("c", health.c);
  }
  check->Equal("has_nan", health.has_nan,
               metrics.at("lstm_has_nan").get<bool>());
  check->Equal("has_inf", health.has_inf,
               metrics.at("lstm_has_inf").get<bool>());
  check->Equal("healthy", health.healthy(), golden.at("healthy").get<bool>());
  CheckNames(health.Anomalies(), golden.at("anomalies"), check);
}

void CheckAnomaly(const json& golden, GoldenReport::Case* check) {
  const json& in = golden.at("inputs");
  ppo::AnomalyInputs inputs;
  inputs.ratio_max = GoldenNumber(in.at("ratio_max"));
  inputs.ratio_min = GoldenNumber(in.at("ratio_min"));
  inputs.nonfinite_metric =
      in.at("has_nan").get<bool>() || in.at("has_inf").get<bool>();
  inputs.any_unforced = in.at("value_collapse_applicable");
  inputs.value_loss = NumberOr(in, "value_loss", 0);
  inputs.bellman_error = NumberOr(in, "bellman_error", 0);
  if (!in.at("entropy").is_null()) {
    inputs.entropy = GoldenNumber(in.at("entropy"));
  }
  if (!in.at("kl").is_null()) inputs.kl = GoldenNumber(in.at("kl"));
  CheckNames(ppo::DetectAnomalies(inputs), golden.at("anomalies"), check);
}

void CheckHeadCollapse(const json& series, GoldenReport::Case* check) {
  ppo::HeadCollapseMonitor monitor;
  for (const json& golden : series) {
    // One entry "<head>_entropy" per step.
    for (const auto& [key, value] : golden.items()) {
      absl::string_view head = key;
      if (!absl::ConsumeSuffix(&head, "_entropy")) continue;
      const auto name = monitor.Update(std::string(head), GoldenNumber(value));
      CheckNames(name.has_value() ? std::vector<std::string>{*name}
                                  : std::vector<std::string>{},
                 golden.at("anomalies"), check);
      check->Equal<int64_t>("streak", monitor.streak(std::string(head)),
                            golden.at("streak"));
    }
  }
}

void CheckEnvironmentSeed(const json& golden, GoldenReport::Case* check) {
  check->Equal<int64_t>(
      "seed",
      ppo::EnvironmentSeed(golden.at("root"), golden.at("batch"),
                           golden.at("env"), golden.at("envs_per_batch")),
      golden.at("seed"));
}

}  // namespace esper::testing
