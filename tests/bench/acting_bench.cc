// One acting step of the network-growing policy in this process: the packed
// policy in both precisions, and the sampler of tensors that it replaces.

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>

#include "ATen/Parallel.h"
#include "ATen/ops/full.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/rand.h"
#include "benchmark/benchmark.h"
#include "core/policy/inference_policy.h"
#include "core/policy/packed_policy.h"
#include "core/policy/recurrent_policy.h"
#include "core/policy/sampler.h"

namespace esper::policy {
namespace {

constexpr int64_t kLargest = 256;

std::shared_ptr<const InferencePolicy> Create(InferencePrecision precision) {
  const PolicySpec spec = PolicySpec::NetworkGrowing();
  const RecurrentPolicy module(spec, /*init_seed=*/1);
  auto policy = InferencePolicy::Create(spec, module.StateDict(), 1, {},
                                        std::nullopt, precision);
  if (!policy.ok()) std::abort();
  return *std::move(policy);
}

const InferencePolicy& Policy(InferencePrecision precision) {
  static const auto& fp32 = *new auto(Create(InferencePrecision::kFp32));
  static const auto& bf16 = *new auto(Create(InferencePrecision::kBf16));
  return precision == InferencePrecision::kBf16 ? *bf16 : *fp32;
}

// One step of some rows, which goes on from the state it leaves.
struct Episode {
  explicit Episode(int64_t rows) {
    const InferencePolicy& policy = Policy(InferencePrecision::kFp32);
    const PolicySpec& spec = policy.spec();
    inputs.observations = at::rand({rows, spec.observation_width()});
    inputs.categorical =
        at::full({rows, spec.categorical_count()}, -1, at::kLong);
    inputs.action_masks = at::ones({rows, spec.action_width()}, at::kBool);
    inputs.state = policy.InitialState(rows);
    noise.keys.resize(rows);
  }
  void Next(const ActionSample& sample) {
    inputs.state = sample.next_state;
    for (NoiseKey& key : noise.keys) ++key.step;
  }

  PolicyInputs inputs;
  CounterKeys noise;
};

void BM_Acting_Tensors(benchmark::State& state) {
  Episode episode(state.range(0));
  const ActingPolicy& acting = Policy(InferencePrecision::kFp32).acting();
  for (auto _ : state) {
    episode.Next(GetAction(acting, episode.inputs, episode.noise));
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

// With tensors at both ends.
void Packed(benchmark::State& state, InferencePrecision precision) {
  Episode episode(state.range(0));
  for (auto _ : state) {
    episode.Next(Policy(precision).GetAction(episode.inputs, episode.noise));
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
void BM_Acting_Packed(benchmark::State& state) {
  Packed(state, InferencePrecision::kFp32);
}
void BM_Acting_PackedBf16(benchmark::State& state) {
  Packed(state, InferencePrecision::kBf16);
}

// What is left of a step without its network: checks, masks, sampling,
// log-probabilities and entropies.
void BM_Acting_SamplingAlone(benchmark::State& state) {
  const int64_t rows = state.range(0);
  const InferencePolicy& policy = Policy(InferencePrecision::kFp32);
  const PackedSampler sampler(policy.spec(), policy.layout());
  const Episode episode(rows);
  const at::Tensor logits = at::rand({rows, policy.spec().action_width()});
  ChoiceInputs inputs;
  inputs.rows = rows;
  inputs.logits = logits.const_data_ptr<float>();
  inputs.masks = episode.inputs.action_masks.const_data_ptr<bool>();
  inputs.keys = episode.noise.keys.data();
  Choices choices;
  for (auto _ : state) {
    sampler.Sample(inputs, policy.floors(), &choices);
    benchmark::DoNotOptimize(choices.actions.data());
  }
  state.SetItemsProcessed(state.iterations() * rows);
}

#define ESPER_ROWS \
  ArgName("rows")->Arg(1)->Arg(8)->Arg(32)->Arg(64)->Arg(kLargest)
BENCHMARK(BM_Acting_Tensors)->ESPER_ROWS;
BENCHMARK(BM_Acting_Packed)->ESPER_ROWS;
BENCHMARK(BM_Acting_PackedBf16)->ESPER_ROWS;
BENCHMARK(BM_Acting_SamplingAlone)->ArgName("rows")->Arg(1)->Arg(64);
#undef ESPER_ROWS

}  // namespace
}  // namespace esper::policy

int main(int argc, char** argv) {
  at::set_num_threads(1);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
