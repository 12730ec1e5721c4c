#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/ppo/gae.h"
#include "core/ppo/normalizer.h"
#include "tests/golden/training_parity/cases.h"

namespace esper::testing {
namespace {

using nlohmann::json;
using ppo::EndHandling;
using ppo::StepEnd;

struct Row {
  std::vector<float> rewards, values, bootstraps;
  std::vector<StepEnd> ends;
};

Row RowOf(const json& env) {
  Row row;
  row.rewards = GoldenNumbers<float>(env.at("rewards"));
  row.values = GoldenNumbers<float>(env.at("values"));
  row.bootstraps = GoldenNumbers<float>(env.at("bootstrap_values"));
  const auto done = GoldenNumbers<int>(env.at("dones"));
  const auto truncated = GoldenNumbers<int>(env.at("truncated"));
  for (size_t t = 0; t < done.size(); ++t) {
    row.ends.push_back(truncated[t] ? StepEnd::kTruncated
                       : done[t]    ? StepEnd::kTerminated
                                    : StepEnd::kNone);
  }
  return row;
}

double ScaleOf(const json& normalizer) {
  if (normalizer.is_null()) return 1.0;
  ppo::ValueNormalizer value({});
  ppo::Moments moments =
      ppo::Moments::Initial(1, GoldenNumber(normalizer.at("count")));
  moments.mean[0] = GoldenNumber(normalizer.at("mean"));
  moments.variance[0] = GoldenNumber(normalizer.at("var"));
  const absl::Status status = value.Restore(moments);
  if (!status.ok()) throw std::runtime_error(status.ToString());
  return value.sigma();
}

// `expected` holds at least advantages and returns of each environment.
void CheckCase(const json& golden, const json& expected, EndHandling ends,
               GoldenReport::Case* check) {
  ppo::GaeOptions options;
  options.gamma = GoldenNumber(golden.at("gamma"));
  options.lambda = GoldenNumber(golden.at("gae_lambda"));
  options.value_unit = ScaleOf(golden.at("value_normalizer"));
  options.ends = ends;
  check->Near("scale", options.value_unit, GoldenNumber(golden.at("scale")),
              1e-6, 1e-6);
  double largest = 1;
  for (const json& env : expected.at("envs")) {
    for (double value : GoldenNumbers<double>(env.at("returns"))) {
      largest = std::max(largest, std::fabs(value));
    }
  }
  const double absolute = 2e-6 * largest;
  const json& envs = golden.at("envs");
  check->Equal("environments", envs.size(), expected.at("envs").size());
  ppo::AdvantageMoments moments;
  std::vector<ppo::GaeResult> results;
  for (size_t e = 0; e < envs.size(); ++e) {
    json env = envs[e];
    const json& penalty = golden.at("penalty");
    if (!penalty.is_null() && penalty.at("env") == e) {
      env["rewards"] = penalty.at("rewards_after");
      env["dones"] = penalty.at("dones_after");
      env["truncated"] = penalty.at("truncated_after");
    }
    const Row row = RowOf(env);
    results.push_back(ppo::ComputeGae(
        {row.rewards, row.values, row.bootstraps, row.ends}, options));
    for (float advantage : results.back().advantages) moments.Add(advantage);
  }
  for (size_t e = 0; e < results.size(); ++e) {
    const json& env = expected.at("envs").at(e);
    const auto series = [&](const char* name, const std::vector<float>& values,
                            double tolerance) {
      if (!env.contains(name)) return;
      CheckSeries(absl::StrCat("env ", e, " ", name), values, env.at(name),
                  1e-5, tolerance, check);
    };
    series("advantages", results[e].advantages, absolute);
    series("returns", results[e].returns, absolute);
    series("td_errors", results[e].td_errors, absolute);
    std::vector<float> normalized;
    for (float advantage : results[e].advantages) {
      normalized.push_back(static_cast<float>(moments.Normalize(advantage)));
    }
    series("normalized_advantages", normalized, 2e-5);
  }
  if (!expected.contains("pre_norm_std")) return;
  check->Near("pre_norm_mean", moments.mean(),
              GoldenNumber(expected.at("pre_norm_mean")), 1e-5, absolute);
  check->Near("pre_norm_std", moments.deviation(),
              GoldenNumber(expected.at("pre_norm_std")), 1e-5, absolute);
  check->Equal("std_floored", moments.floored(),
               expected.at("std_floored").get<bool>());
}

}  // namespace

void CheckGae(const GoldenJson& file, GoldenReport* report) {
  int index = 0;
  for (const json& golden : file.content.at("cases")) {
    const std::string name = absl::StrCat(file.name, "/", index++);
    RunCase(report, name + "/upstream", [&](GoldenReport::Case* check) {
      CheckCase(golden, golden.at("expected"), EndHandling::kUpstream, check);
    });
    // Ours, which is the same thing unless the case says what it is.
    const json& deviation = DeviationOf(golden);
    if (!deviation.is_null() && !deviation.is_object()) {
      report->Skip(name + "/every_end", deviation.dump());
      continue;
    }
    RunCase(report, name + "/every_end", [&](GoldenReport::Case* check) {
      CheckCase(golden, deviation.is_null() ? golden.at("expected") : deviation,
                EndHandling::kEveryEnd, check);
    });
  }
}

}  // namespace esper::testing
