// Training on one core: advantages of a batch, and whole passes of the
// network-growing policy.

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "ATen/Parallel.h"
#include "benchmark/benchmark.h"
#include "core/policy/policy_spec.h"
#include "core/ppo/gae.h"
#include "core/ppo/learner.h"
#include "spdlog/spdlog.h"
#include "tests/core/ppo/rollout.h"

namespace {

namespace ppo = esper::ppo;

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (!value.ok()) {
    spdlog::critical("{}", value.status().ToString());
    std::exit(1);
  }
  return *std::move(value);
}

// GAE and the moments of the advantages, as a pass computes them.
void BM_Gae(benchmark::State& state) {
  const int64_t rows = state.range(0), steps = state.range(1);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> rewards(rows * steps), values(rows * steps),
      bootstraps(rows * steps);
  for (auto* numbers : {&rewards, &values, &bootstraps}) {
    for (float& x : *numbers) x = normal(random);
  }
  std::vector<ppo::StepEnd> ends(steps, ppo::StepEnd::kNone);
  ends.back() = ppo::StepEnd::kTruncated;
  for (auto _ : state) {
    ppo::AdvantageMoments moments;
    for (int64_t b = 0; b < rows; ++b) {
      const auto row = [&](const std::vector<float>& all) {
        return absl::Span<const float>(all.data() + b * steps, steps);
      };
      const ppo::GaeResult result = ppo::ComputeGae(
          {row(rewards), row(values), row(bootstraps), ends}, {});
      for (float advantage : result.advantages) moments.Add(advantage);
      benchmark::DoNotOptimize(result.returns.data());
    }
    benchmark::DoNotOptimize(moments);
  }
  state.SetItemsProcessed(state.iterations() * rows * steps);
}
BENCHMARK(BM_Gae)
    ->ArgNames({"rows", "steps"})
    ->Args({8, 150})
    ->Args({128, 150})
    ->Unit(benchmark::kMicrosecond);

// One update of one pass: forward, backward, clip, step, publish; the policy
// with three slots and 512 wide.
void BM_Update(benchmark::State& state) {
  at::set_num_threads(1);
  const auto spec = esper::policy::PolicySpec::NetworkGrowing();
  const auto learner = OrDie(ppo::Learner::Create(spec, {}, 1));
  ppo::RolloutOptions rollout;
  rollout.lengths.assign(state.range(0), state.range(1));
  rollout.contributions = true;
  ppo::PpoOptions options;
  options.update_statistics = true;
  for (auto _ : state) {
    state.PauseTiming();
    const auto episodes = ppo::Rollout(spec, *learner->published(), rollout);
    state.ResumeTiming();
    OrDie(learner->ForwardBackward(episodes, options));
    OrDie(learner->OptimStep({}));
    learner->Publish();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0) * state.range(1));
}
BENCHMARK(BM_Update)
    ->ArgNames({"rows", "steps"})
    ->Args({4, 25})
    ->Args({8, 150})
    ->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
