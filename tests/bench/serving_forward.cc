#include "tests/bench/serving_forward.h"

#include <chrono>
#include <numeric>
#include <utility>
#include <vector>

#include "ATen/ops/full.h"
#include "ATen/ops/rand.h"
#include "absl/time/clock.h"
#include "c10/core/InferenceMode.h"
#include "core/policy/inference_policy.h"
#include "core/policy/packed_policy.h"
#include "proto/codec/mask_codec.h"
#include "server/batch_rows.h"
#include "server/server.h"
#include "server/state_pool.h"

namespace esper::bench {

absl::StatusOr<LoadReport> RunForward(int64_t episodes, int64_t rows,
                                      double seconds, double pause) {
  server::ServerOptions options;
  options.address = "";
  // Of the same precision as a server without flags.
  const auto server = server::Server::Create(options);
  if (!server.ok()) return server.status();
  const auto published = (*server)->policies().Current();
  const policy::PolicySpec& spec = published->policy->spec();
  const codec::MaskCodec codec(spec);
  v1::Tensor masks;
  codec.Encode(codec.AllowAll(rows), &masks);

  const auto decoded = codec.Decode(masks, rows, "action_masks");
  if (!decoded.ok()) return decoded.status();
  const codec::ActionMasks& allowed = *decoded;

  server::StatePool pool(spec.lstm_layers, spec.hidden_dim, episodes);
  for (int64_t row = 0; row < episodes; ++row) pool.Allocate();
  const c10::InferenceMode inference_mode;
  const at::Tensor observations = at::rand({rows, spec.observation_width()});
  const at::Tensor categorical =
      at::full({rows, spec.categorical_count()}, -1, at::kLong);
  std::vector<int64_t> all(rows);
  std::iota(all.begin(), all.end(), 0);
  const int64_t state_size = spec.lstm_layers * spec.hidden_dim;
  const policy::InferencePolicy& policy = *published->policy;
  server::BatchRows batch;
  policy::ActingResult result;
  std::vector<double> latencies;
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  int64_t first = 0;
  uint64_t call = 0;
  const auto act = [&] {
    batch.Clear();
    batch.Add(observations, categorical, &allowed, all);
    for (int64_t row = first; row < first + rows; ++row) {
      batch.AddState(pool.h(row), pool.c(row));
      batch.AddKey({static_cast<uint64_t>(row), call, false});
    }
    ++call;
    policy.packed().Act(batch.Step(published->scaler, spec.hidden_dim),
                        batch.Choices(), policy.floors(), &result);
    for (int64_t row = 0; row < rows; ++row) {
      pool.Write(first + row, result.network.h.data() + row * state_size,
                 result.network.c.data() + row * state_size);
    }
    first = first + 2 * rows <= episodes ? first + rows : 0;
  };
  for (int warmup = 0; warmup < 20; ++warmup) act();
  const Clock::time_point begin = Clock::now();
  do {
    if (pause > 0) absl::SleepFor(absl::Seconds(pause));
    const Clock::time_point start = Clock::now();
    act();
    latencies.push_back(since(start));
  } while (since(begin) < seconds);
  LoadReport report;
  const double calls = static_cast<double>(latencies.size());
  report.calls_per_second = calls / since(begin);
  report.actions_per_second = report.calls_per_second * rows;
  report.latency = PercentilesOf(std::move(latencies));
  return report;
}

}  // namespace esper::bench
