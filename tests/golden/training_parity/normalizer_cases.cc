#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "ATen/ops/tensor.h"
#include "core/error.h"
#include "core/ppo/normalizer.h"
#include "tests/golden/training_parity/cases.h"

namespace esper::testing {
namespace {

using nlohmann::json;
using ppo::Averaging;

constexpr double kRelative = 2e-5;

at::Tensor Matrix(const json& rows) {
  return at::tensor(GoldenNumbers<float>(rows))
      .reshape({static_cast<int64_t>(rows.size()), -1});
}

std::vector<float> ToVector(const at::Tensor& x) {
  const at::Tensor flat = x.contiguous();
  const float* data = flat.const_data_ptr<float>();
  return {data, data + flat.numel()};
}

double Largest(const json& steps, const char* key) {
  double largest = 0;
  for (const json& step : steps) {
    for (double x : GoldenNumbers<double>(step.at(key))) {
      largest = std::max(largest, std::fabs(x));
    }
  }
  return largest;
}

void MustSucceed(const absl::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}

void CheckObservation(const json& golden, GoldenReport::Case* check) {
  ppo::ObservationNormalizer::Options options;
  options.averaging = golden.at("momentum").is_null()
                          ? Averaging::Exact()
                          : Averaging::Momentum(golden.at("momentum"));
  options.initial_count = 1e-4;
  options.epsilon = GoldenNumber(golden.at("epsilon"));
  options.clip = GoldenNumber(golden.at("clip"));
  ppo::ObservationNormalizer normalizer(golden.at("dim"), options);
  const double largest = Largest(golden.at("steps"), "batch");
  const double absolute = 1e-6 * (1 + largest) * (1 + largest);
  const double output = largest > 1e4 ? 1e-3 : 1e-4;
  int number = 0;
  for (const json& step : golden.at("steps")) {
    const std::string prefix = absl::StrCat("step ", number++, " ");
    const at::Tensor batch = Matrix(step.at("batch"));
    const at::Tensor head = batch.slice(0, 0, 3);
    const auto outputs = [&](const char* name, const at::Tensor& actual) {
      CheckSeries(prefix + name, ToVector(actual), step.at(name), kRelative,
                  output, check);
    };
    outputs("normalized_before_update", normalizer.Scaler().Apply(head));
    MustSucceed(normalizer.Update(batch));
    const ppo::Moments& moments = normalizer.moments();
    CheckSeries(prefix + "mean", moments.mean, step.at("mean"), kRelative,
                absolute, check);
    CheckSeries(prefix + "var", moments.variance, step.at("var"), kRelative,
                absolute, check);
    check->Near(prefix + "count", moments.count, GoldenNumber(step.at("count")),
                kRelative, 1e-6);
    outputs("normalized_after_update", normalizer.Scaler().Apply(head));
    outputs(
        "probe",
        normalizer.Scaler().Apply(
            at::tensor(std::vector<float>(batch.size(1), 1e9f)).unsqueeze(0)));
    outputs("probe_clip_2", ppo::ObservationScaler(moments, options.epsilon, 2)
                                .Apply(batch.slice(0, 0, 1)));
  }
}

void CheckReward(const json& golden, GoldenReport::Case* check) {
  ppo::RewardNormalizer normalizer(GoldenNumber(golden.at("clip")),
                                   GoldenNumber(golden.at("epsilon")));
  int number = 0;
  for (const json& step : golden.at("steps")) {
    const std::string prefix = absl::StrCat("step ", number++, " ");
    const double reward = GoldenNumber(step.at("reward"));
    if (!std::isfinite(reward)) {
      // T8: refused by us, while the reference is poisoned from here on, so
      // that the rest of the case says nothing.
      if (DeviationRow(DeviationOf(golden)) != "T8") {
        check->Fail(prefix + "is not finite, but no deviation is declared");
      }
      const auto before = normalizer.state();
      const auto refused = normalizer.Normalize(reward);
      check->Equal("refusal", refused.status().code(),
                   absl::StatusCode::kInvalidArgument);
      check->Equal("count", normalizer.state().count, before.count);
      check->Equal("mean", normalizer.state().mean, before.mean);
      check->Equal("m2", normalizer.state().m2, before.m2);
      return;
    }
    const auto near = [&](const char* name, double actual) {
      check->Near(prefix + name, actual, GoldenNumber(step.at(name)),
                  kGoldenTolerance, kGoldenTolerance);
    };
    near("normalize_only_before", normalizer.NormalizeOnly(reward).value());
    near("normalized", normalizer.Normalize(reward).value());
    near("mean", normalizer.state().mean);
    near("m2", normalizer.state().m2);
    near("count", static_cast<double>(normalizer.state().count));
  }
}

void CheckValue(const json& golden, GoldenReport::Case* check) {
  ppo::ValueNormalizer::Options options;
  options.min_samples = golden.at("min_samples");
  options.epsilon = GoldenNumber(golden.at("epsilon"));
  options.averaging =
      golden.at("momentum").is_null()
          ? Averaging::Exact()
          : Averaging::ExactThenMomentum(golden.at("min_samples"),
                                         golden.at("momentum"));
  ppo::ValueNormalizer normalizer(options);
  const double largest = Largest(golden.at("steps"), "returns");
  const double absolute = 1e-6 * (1 + largest) * (1 + largest);
  int number = 0;
  for (const json& step : golden.at("steps")) {
    const std::string prefix = absl::StrCat("step ", number++, " ");
    MustSucceed(normalizer.Update(GoldenNumbers<float>(step.at("returns"))));
    const ppo::Moments& moments = normalizer.moments();
    const auto near = [&](const char* name, double actual, double tolerance) {
      check->Near(prefix + name, actual, GoldenNumber(step.at(name)), kRelative,
                  tolerance);
    };
    near("mean", moments.mean[0], absolute);
    near("var", moments.variance[0], absolute);
    near("count", moments.count, 0);
    near("scale", normalizer.sigma(), 1e-4);
    check->Equal(prefix + "has_valid_stats", normalizer.has_valid_statistics(),
                 step.at("has_valid_stats").get<bool>());
    std::vector<double> normalized, denormalized;
    for (double x : GoldenNumbers<double>(golden.at("probe"))) {
      normalized.push_back(x / normalizer.sigma());
      denormalized.push_back(x * normalizer.sigma());
    }
    CheckSeries(prefix + "normalized", normalized, step.at("normalized"),
                kRelative, 1e-4, check);
    CheckSeries(prefix + "denormalized", denormalized, step.at("denormalized"),
                kRelative, 1e-4, check);
  }
}

}  // namespace

void CheckNormalizers(const GoldenJson& file, GoldenReport* report) {
  using CaseCheck = void (*)(const json&, GoldenReport::Case*);
  const std::map<std::string, CaseCheck> checks = {
      {"observation", CheckObservation},
      {"reward", CheckReward},
      {"value", CheckValue}};
  for (const auto& [kind, cases] : file.content.items()) {
    if (kind == "format") continue;
    const auto it = checks.find(kind);
    int index = 0;
    for (const json& golden : cases) {
      RunCase(report, absl::StrCat(file.name, "/", kind, "/", index++),
              [&](GoldenReport::Case* check) {
                if (it == checks.end()) {
                  check->Fail("unknown kind of normaliser");
                } else {
                  it->second(golden, check);
                }
              });
    }
  }
}

}  // namespace esper::testing
