// Actions per second of the network-growing policy: through the server over a
// loopback socket, and by the same forward pass in this process.

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "ATen/Parallel.h"
#include "ATen/ops/full.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/rand.h"
#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "client/mask_packing.h"
#include "client/policy_client.h"
#include "core/policy/inference_policy.h"
#include "server/server.h"
#include "spdlog/spdlog.h"

namespace {

using esper::policy::PolicySpec;

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (!value.ok()) {
    spdlog::critical("{}", value.status().ToString());
    std::exit(1);
  }
  return *std::move(value);
}

// One server for all cases, as a process that runs for long would be.
esper::server::Server& TheServer() {
  static const auto& server = *new std::unique_ptr<esper::server::Server>([] {
    esper::server::ServerOptions options;
    options.address = "127.0.0.1:0";
    return OrDie(esper::server::Server::Create(options));
  }());
  return *server;
}

// Packed masks of one row, everything allowed.
std::vector<uint8_t> AllowAll(const PolicySpec& spec) {
  esper::client::MaskLayout layout;
  const int64_t conditional = spec.ConditionalHead();
  layout.driver_actions = spec.heads[spec.DriverOf(conditional)].size;
  layout.conditional_choices = spec.heads[conditional].size;
  esper::client::MaskRow row;
  row.conditional.assign(layout.driver_actions * layout.conditional_choices,
                         true);
  for (int64_t k = 0; k < spec.num_heads(); ++k) {
    if (k == conditional) continue;
    layout.head_sizes.push_back(spec.heads[k].size);
    row.heads.emplace_back(spec.heads[k].size, true);
  }
  return OrDie(esper::client::PackMask(layout, row));
}

// Every environment steps at once: one call carries all rows, which is how an
// environment process asks.
void BM_GetAction_ThroughServer(benchmark::State& state) {
  const int64_t environments = state.range(0);
  const PolicySpec& spec = TheServer().policies().spec();
  esper::client::ConnectOptions connect;
  connect.address = absl::StrCat("127.0.0.1:", TheServer().port());
  auto client = OrDie(esper::client::PolicyClient::Connect(connect));

  static uint64_t incarnation = 0;
  ++incarnation;
  std::vector<esper::client::EpisodeStart> starts(environments);
  for (int64_t i = 0; i < environments; ++i) {
    starts[i].environment_key = absl::StrCat("bench-", i);
    starts[i].incarnation = incarnation;
    starts[i].seed = static_cast<uint64_t>(i);
  }
  const auto handles = OrDie(client->OpenEpisodes(starts));

  std::mt19937 random(7);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<esper::client::StepRow> rows(environments);
  for (int64_t i = 0; i < environments; ++i) {
    rows[i].episode = handles[i];
    rows[i].input.categorical.assign(spec.categorical_count(), -1);
    rows[i].input.packed_mask = AllowAll(spec);
    rows[i].input.observation.resize(spec.observation_width());
    for (float& x : rows[i].input.observation) x = uniform(random);
  }
  for (auto _ : state) {
    benchmark::DoNotOptimize(OrDie(client->GetAction(rows)));
    for (auto& row : rows) ++row.step;
  }
  state.SetItemsProcessed(state.iterations() * environments);
}

void BM_GetAction_InProcess(benchmark::State& state) {
  const int64_t environments = state.range(0);
  const auto published = TheServer().policies().Current();
  const esper::policy::InferencePolicy& policy = *published->policy;
  const PolicySpec& spec = policy.spec();
  esper::policy::PolicyInputs inputs;
  inputs.observations = at::rand({environments, spec.observation_width()});
  inputs.categorical =
      at::full({environments, spec.categorical_count()}, -1, at::kLong);
  inputs.action_masks =
      at::ones({environments, spec.action_width()}, at::kBool);
  inputs.state = policy.InitialState(environments);
  esper::policy::CounterKeys noise;
  noise.keys.resize(environments);
  for (auto _ : state) {
    auto sample = policy.GetAction(inputs, noise);
    inputs.state = sample.next_state;
    for (auto& key : noise.keys) ++key.step;
    benchmark::DoNotOptimize(sample);
  }
  state.SetItemsProcessed(state.iterations() * environments);
}

BENCHMARK(BM_GetAction_ThroughServer)
    ->ArgName("environments")
    ->Arg(1)
    ->Arg(32)
    ->Arg(64)
    ->UseRealTime();
BENCHMARK(BM_GetAction_InProcess)
    ->ArgName("environments")
    ->Arg(1)
    ->Arg(32)
    ->Arg(64)
    ->UseRealTime();

}  // namespace

int main(int argc, char** argv) {
  at::set_num_threads(1);
  spdlog::set_level(spdlog::level::warn);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
