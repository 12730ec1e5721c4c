// The default policy (512 wide, three slots) in process, on one core:
//   bazel run -c opt //tests/bench/policy:policy_benchmark
// `Forward` is the part that any implementation must do.
#include <ATen/Parallel.h>

#include "benchmark/benchmark.h"
#include "c10/core/InferenceMode.h"
#include "core/policy/evaluator.h"
#include "core/policy/network_forward.h"
#include "core/policy/sampler.h"
#include "tests/core/policy/test_policy.h"

namespace esper::policy {
namespace {

TestPolicy& Default() {
  static auto& policy = *new TestPolicy(PolicySpec::NetworkGrowing());
  return policy;
}

void BM_GetAction_Batch(benchmark::State& state) {
  const PolicyInputs step = Default().RandomStep(state.range(0));
  const CounterKeys keys{Default().Keys(state.range(0))};
  for (auto _ : state) {
    benchmark::DoNotOptimize(Default().inference().GetAction(step, keys));
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_GetAction_Batch)->ArgName("rows")->Arg(1)->Arg(8)->Arg(64);

void BM_Forward_Batch(benchmark::State& state) {
  const PolicyInputs step = Default().RandomStep(state.range(0));
  const NetworkWeights& weights = *Default().inference().acting().weights;
  const c10::InferenceMode inference;
  const at::Tensor observations = step.observations.unsqueeze(1);
  const at::Tensor categorical = step.categorical.unsqueeze(1);
  for (auto _ : state) {
    const TrunkOutput trunk =
        Trunk(weights, observations, categorical, step.state);
    benchmark::DoNotOptimize(Heads(weights, trunk.trunk.squeeze(1)));
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_Forward_Batch)->ArgName("rows")->Arg(1)->Arg(8)->Arg(64);

void BM_EvaluateAndBackward_RowsBySteps(benchmark::State& state) {
  const EvaluationInputs inputs =
      Default().Rollout(state.range(0), state.range(1)).second;
  RecurrentPolicy& module = Default().module();
  for (auto _ : state) {
    const Evaluation result = EvaluateActions(module, inputs);
    result.log_probs.tensor()
        .sum()
        .add(result.entropies.tensor().sum())
        .add(result.values.tensor().sum())
        .add(result.q_values.tensor().sum())
        .add(result.contributions.tensor().sum())
        .backward();
    module.zero_grad();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0) * state.range(1));
}
BENCHMARK(BM_EvaluateAndBackward_RowsBySteps)
    ->ArgNames({"rows", "steps"})
    ->Args({4, 25})
    ->Args({8, 150})
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace esper::policy

int main(int argc, char** argv) {
  at::set_num_threads(1);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
