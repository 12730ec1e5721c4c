// Cost of measuring what every seed is worth: one validation batch under all
// alpha settings, against one plain forward pass of the same batch.
//   Shared: configurations share their rows until they begin to differ.
//   Fused: every configuration has rows of its own, each set once.
//   Sequential: one forward pass after another, a configuration each.
//   Repeated: fused, with the sets that the reference implementation runs,
//   of which some are equal.

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/Parallel.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/full.h"
#include "ATen/ops/randn.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "c10/core/InferenceMode.h"
#include "core/host/cnn_blueprints.h"
#include "core/host/cnn_host.h"
#include "core/host/counterfactual_eval.h"
#include "core/host/growable_model.h"
#include "core/slot/slot_lifecycle.h"
#include "spdlog/spdlog.h"

namespace {

namespace host = esper::host;
namespace slot = esper::slot;

constexpr int64_t kRows = 144;  // Of the digits' reward split.

void OrDie(const absl::Status& status) {
  if (status.ok()) return;
  spdlog::critical("{}", status.ToString());
  std::abort();
}

// Brings a seed into BLENDING at alpha 0.5.
void Blend(const slot::SlotLifecycle& lifecycle, slot::SeedSlot& slot) {
  slot::GerminateRequest request;
  request.blueprint_id = "conv_light";
  OrDie(lifecycle.Germinate(slot, request).status());
  OrDie(lifecycle.Advance(slot).status());
  for (int epoch = 0; epoch < 10; ++epoch) OrDie(slot.RecordAccuracy(50));
  slot::GradientReading reading;
  reading.sampled = true;
  reading.health = 1;
  OrDie(slot.RecordGradients(reading));
  OrDie(lifecycle.Advance(slot).status());
  OrDie(lifecycle.SetAlpha(slot, 0.5).status());
}

// The host of the digits task with seeds in its first n slots.
std::shared_ptr<host::GrowableModel> MakeModel(int n) {
  host::CnnHostOptions options;
  options.in_channels = 1;
  options.base_channels = 8;
  std::vector<std::string> slots;
  for (int i = 0; i < n; ++i) {
    slots.push_back(i < 3 ? absl::StrCat("r0c", i)
                          : absl::StrCat("r1c", i - 3));
  }
  auto model = host::GrowableModel::Create(
                   host::CnnHost::Create(options, /*seed=*/1).value(), slots)
                   .value();
  slot::SlotLifecycle::Options lifecycle_options;
  lifecycle_options.registry = &host::DefaultBlueprints();
  const auto lifecycle = slot::SlotLifecycle::Create(lifecycle_options).value();
  for (const auto& slot : model->slots()) Blend(lifecycle, *slot);
  model->eval();
  return model;
}

// Sets of slots that are on, as the reference implementation lists them.
std::vector<uint64_t> RepeatedMasks(int n) {
  const uint64_t all = (uint64_t{1} << n) - 1;
  std::vector<uint64_t> masks = {all};
  for (int i = 0; i < n; ++i) masks.push_back(all & ~(uint64_t{1} << i));
  for (int i = 0; i < n; ++i) masks.push_back(uint64_t{1} << i);
  if (n >= 2) masks.push_back(0);
  for (int i = 0; n >= 3 && i < n; ++i) {
    for (int j = i + 1; j < n; ++j) {
      masks.push_back(uint64_t{1} << i | uint64_t{1} << j);
    }
  }
  masks.push_back(0);  // What is committed, without fossilised slots.
  return masks;
}

void RunFused(benchmark::State& state, const std::vector<uint64_t>& masks) {
  const int n = static_cast<int>(state.range(0));
  const auto model = MakeModel(n);
  c10::InferenceMode inference;
  const at::Tensor x = at::randn({kRows, 1, 8, 8});
  for (auto _ : state) {
    host::AlphaOverrides overrides;
    for (int i = 0; i < n; ++i) {
      std::vector<at::Tensor> column;
      for (const uint64_t mask : masks) {
        column.push_back(at::full({kRows, 1, 1, 1}, mask >> i & 1 ? 0.5 : 0.0));
      }
      overrides[model->slot_ids()[i]] = at::cat(column);
    }
    const std::vector<at::Tensor> copies(masks.size(), x);
    benchmark::DoNotOptimize(model->FusedForward(at::cat(copies), overrides));
  }
  state.counters["rows"] = static_cast<double>(masks.size() * kRows);
}

void BM_Counterfactual_Fused(benchmark::State& state) {
  const auto model = MakeModel(static_cast<int>(state.range(0)));
  RunFused(state, host::PlanCounterfactuals(*model)->masks());
}

void BM_Counterfactual_Repeated(benchmark::State& state) {
  RunFused(state, RepeatedMasks(static_cast<int>(state.range(0))));
}

void BM_Counterfactual_Shared(benchmark::State& state) {
  const auto model = MakeModel(static_cast<int>(state.range(0)));
  const auto plan = host::PlanCounterfactuals(*model).value();
  c10::InferenceMode inference;
  const at::Tensor x = at::randn({kRows, 1, 8, 8});
  for (auto _ : state) {
    benchmark::DoNotOptimize(host::ForwardConfigurations(*model, plan, x));
  }
}

void BM_Counterfactual_Sequential(benchmark::State& state) {
  const int n = static_cast<int>(state.range(0));
  const auto model = MakeModel(n);
  const std::vector<uint64_t> masks =
      host::PlanCounterfactuals(*model).value().masks();
  c10::InferenceMode inference;
  const at::Tensor x = at::randn({kRows, 1, 8, 8});
  for (auto _ : state) {
    for (const uint64_t mask : masks) {
      host::AlphaOverrides overrides;
      for (int i = 0; i < n; ++i) {
        overrides[model->slot_ids()[i]] =
            at::full({kRows, 1, 1, 1}, mask >> i & 1 ? 0.5 : 0.0);
      }
      benchmark::DoNotOptimize(model->FusedForward(x, overrides));
    }
  }
}

void BM_Counterfactual_Plain(benchmark::State& state) {
  const auto model = MakeModel(static_cast<int>(state.range(0)));
  c10::InferenceMode inference;
  const at::Tensor x = at::randn({kRows, 1, 8, 8});
  for (auto _ : state) benchmark::DoNotOptimize(model->Forward(x));
}

BENCHMARK(BM_Counterfactual_Plain)->ArgName("slots")->DenseRange(1, 5);
BENCHMARK(BM_Counterfactual_Shared)->ArgName("slots")->DenseRange(1, 5);
BENCHMARK(BM_Counterfactual_Fused)->ArgName("slots")->DenseRange(1, 5);
BENCHMARK(BM_Counterfactual_Sequential)->ArgName("slots")->DenseRange(1, 5);
BENCHMARK(BM_Counterfactual_Repeated)->ArgName("slots")->DenseRange(1, 5);

}  // namespace

int main(int argc, char** argv) {
  at::set_num_threads(1);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
