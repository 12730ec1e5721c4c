// What slots add to a forward pass of the digits host: nothing while they are
// empty, and the seed with one blend once it is fossilised.

#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "ATen/Parallel.h"
#include "ATen/ops/randn.h"
#include "absl/status/status.h"
#include "benchmark/benchmark.h"
#include "c10/core/InferenceMode.h"
#include "core/host/cnn_blueprints.h"
#include "core/host/cnn_host.h"
#include "core/host/growable_model.h"
#include "core/slot/slot_lifecycle.h"
#include "spdlog/spdlog.h"

namespace {

namespace host = esper::host;
namespace slot = esper::slot;

void OrDie(const absl::Status& status) {
  if (status.ok()) return;
  spdlog::critical("{}", status.ToString());
  std::abort();
}

double ThreadSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * now.tv_nsec;
}

std::shared_ptr<host::CnnHost> MakeHost() {
  host::CnnHostOptions options;
  options.in_channels = 1;
  options.base_channels = 8;
  auto made = host::CnnHost::Create(options, /*seed=*/1).value();
  made->eval();
  return made;
}

std::shared_ptr<host::GrowableModel> MakeModel() {
  auto model =
      host::GrowableModel::Create(MakeHost(), {"r0c0", "r0c1", "r0c2"}).value();
  model->eval();
  return model;
}

// Takes the seed of a slot through its whole life, to FOSSILIZED.
void Fossilize(slot::SeedSlot& slot) {
  slot::SlotLifecycle::Options options;
  options.registry = &host::DefaultBlueprints();
  const auto lifecycle = slot::SlotLifecycle::Create(options).value();
  slot::GerminateRequest request;
  request.blueprint_id = "conv_light";
  OrDie(lifecycle.Germinate(slot, request).status());
  OrDie(lifecycle.Advance(slot).status());
  slot::GradientReading reading;
  reading.sampled = true;
  reading.health = 1;
  for (int epoch = 0; epoch < 10; ++epoch) OrDie(slot.RecordAccuracy(50));
  OrDie(slot.RecordGradients(reading));
  OrDie(lifecycle.Advance(slot).status());
  for (int epoch = 0; epoch < 10; ++epoch) {
    OrDie(slot.RecordAccuracy(60));
    OrDie(lifecycle.Tick(slot).status());
  }
  OrDie(lifecycle.Advance(slot).status());
  OrDie(slot.RecordContribution(5));
  OrDie(lifecycle.Fossilize(slot).status());
}

void BM_Forward_BareHost(benchmark::State& state) {
  const auto bare = MakeHost();
  c10::InferenceMode inference;
  const at::Tensor x = at::randn({state.range(0), 1, 8, 8});
  for (auto _ : state) benchmark::DoNotOptimize(bare->Forward(x));
}

void BM_Forward_EmptySlots(benchmark::State& state) {
  const auto model = MakeModel();
  c10::InferenceMode inference;
  const at::Tensor x = at::randn({state.range(0), 1, 8, 8});
  for (auto _ : state) benchmark::DoNotOptimize(model->Forward(x));
}

// A forward against that of the bare host, in turns, which cancels what the
// machine does meanwhile: the median over pairs of the quotient of their times,
// in CPU time of the thread.
template <typename Forward>
void CompareWithBare(benchmark::State& state, Forward forward) {
  const auto bare = MakeHost();
  c10::InferenceMode inference;
  const at::Tensor x = at::randn({state.range(0), 1, 8, 8});
  const auto time_bare = [&] {
    const double begin = ThreadSeconds();
    benchmark::DoNotOptimize(bare->Forward(x));
    return ThreadSeconds() - begin;
  };
  const auto time_empty = [&] {
    const double begin = ThreadSeconds();
    benchmark::DoNotOptimize(forward(x));
    return ThreadSeconds() - begin;
  };
  std::vector<double> ratios;
  for (auto _ : state) {
    const bool bare_first = ratios.size() % 2 == 0;
    const double first = bare_first ? time_bare() : time_empty();
    const double second = bare_first ? time_empty() : time_bare();
    ratios.push_back(bare_first ? second / first : first / second);
  }
  const auto middle = ratios.begin() + ratios.size() / 2;
  std::nth_element(ratios.begin(), middle, ratios.end());
  state.counters["ratio"] = *middle;
}

void BM_Forward_EmptyOverBare(benchmark::State& state) {
  const auto model = MakeModel();
  CompareWithBare(state,
                  [&](const at::Tensor& x) { return model->Forward(x); });
}

// What the model would cost if its host stopped at every slot, empty or not.
void BM_Forward_StopsOverBare(benchmark::State& state) {
  const auto model = MakeModel();
  CompareWithBare(state, [&](const at::Tensor& x) {
    at::Tensor features = x;
    int from = host::Host::kInput;
    for (const auto& [position, slot] : model->route()) {
      features = model->host().Run(from, position, features);
      features = slot->forward(features);
      from = position;
    }
    return model->host().Run(from, model->host().output(), features);
  });
}

// Two equal hosts: what the comparison itself makes of no difference.
void BM_Forward_BareOverBare(benchmark::State& state) {
  const auto other = MakeHost();
  CompareWithBare(state,
                  [&](const at::Tensor& x) { return other->Forward(x); });
}

void BM_Forward_OneFossilized(benchmark::State& state) {
  const auto model = MakeModel();
  Fossilize(*model->slots()[1]);
  c10::InferenceMode inference;
  const at::Tensor x = at::randn({state.range(0), 1, 8, 8});
  for (auto _ : state) benchmark::DoNotOptimize(model->Forward(x));
}

// The seed of the case above on its own, at the same place of the host.
void BM_Forward_SeedAlone(benchmark::State& state) {
  const auto model = MakeModel();
  Fossilize(*model->slots()[1]);
  c10::InferenceMode inference;
  // Block 1 of the host makes 16 channels; one pool before it halves 8 to 4.
  const at::Tensor x = at::randn({state.range(0), 16, 4, 4});
  const slot::SeedSlot& grown = *model->slots()[1];
  for (auto _ : state) benchmark::DoNotOptimize(grown.forward(x));
}

BENCHMARK(BM_Forward_BareHost)->ArgName("batch")->Arg(64)->Arg(144);
BENCHMARK(BM_Forward_EmptySlots)->ArgName("batch")->Arg(64)->Arg(144);
BENCHMARK(BM_Forward_EmptyOverBare)->ArgName("batch")->Arg(64)->Arg(144);
BENCHMARK(BM_Forward_StopsOverBare)->ArgName("batch")->Arg(64)->Arg(144);
BENCHMARK(BM_Forward_BareOverBare)->ArgName("batch")->Arg(64)->Arg(144);
BENCHMARK(BM_Forward_OneFossilized)->ArgName("batch")->Arg(64)->Arg(144);
BENCHMARK(BM_Forward_SeedAlone)->ArgName("batch")->Arg(64)->Arg(144);

}  // namespace

int main(int argc, char** argv) {
  at::set_num_threads(1);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
