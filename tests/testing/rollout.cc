#include "tests/testing/rollout.h"

#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/env/trajectory_recorder.h"
#include "client/mask_packing.h"
#include "client/policy_client.h"
#include "spdlog/spdlog.h"

namespace esper::testing {
namespace {

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (!value.ok()) {
    spdlog::critical("{}", value.status().ToString());
    std::abort();
  }
  return *std::move(value);
}

// Every choice allowed; nothing where the specification lets masks be absent.
std::vector<uint8_t> AllowAll(const policy::PolicySpec& spec) {
  if (spec.mask_optional || spec.action_width() == 0) return {};
  client::MaskLayout layout;
  client::MaskRow row;
  const int64_t conditional = spec.ConditionalHead();
  if (conditional >= 0) {
    layout.driver_actions = spec.heads[spec.DriverOf(conditional)].size;
    layout.conditional_choices = spec.heads[conditional].size;
    row.conditional.assign(layout.driver_actions * layout.conditional_choices,
                           true);
  }
  for (int64_t k = 0; k < spec.num_heads(); ++k) {
    if (k == conditional) continue;
    if (spec.heads[k].kind != policy::HeadKind::kCategorical) continue;
    layout.head_sizes.push_back(spec.heads[k].size);
    row.heads.emplace_back(spec.heads[k].size, true);
  }
  return OrDie(client::PackMask(layout, row));
}

// A head whose choice outcomes report; -1 if no head drives another.
int64_t DriverHead(const policy::PolicySpec& spec) {
  for (int64_t k = 0; k < spec.num_heads(); ++k) {
    if (spec.DriverOf(k) >= 0) return spec.DriverOf(k);
  }
  return -1;
}

client::PolicyInput RandomInput(const policy::PolicySpec& spec,
                                std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  client::PolicyInput input;
  input.observation.resize(spec.observation_width());
  for (float& x : input.observation) x = normal(random);
  input.categorical.resize(spec.categorical_count());
  for (int8_t& c : input.categorical) {
    c = static_cast<int8_t>(static_cast<int>(random() % 14) - 1);
  }
  input.packed_mask = AllowAll(spec);
  return input;
}

}  // namespace

policy::PolicySpec SmallSpec() {
  policy::NetworkGrowingOptions options;
  options.feature_dim = 24;
  options.hidden_dim = 16;
  return policy::PolicySpec::NetworkGrowing(options);
}

v1::TrajectoryBatch ActEpisodes(const std::shared_ptr<grpc::Channel>& channel,
                                const policy::PolicySpec& spec, int episodes,
                                int steps, uint64_t seed) {
  client::PolicyClient client(channel);
  std::mt19937_64 random(seed);
  std::vector<client::EpisodeStart> starts(episodes);
  for (int i = 0; i < episodes; ++i) {
    starts[i].environment_key = absl::StrCat("rollout-", seed, "-", i);
    starts[i].seed = random();
  }
  const auto handles = OrDie(client.OpenEpisodes(starts));
  const int64_t driver = DriverHead(spec);

  std::vector<client::TrajectoryRecorder> recorders(episodes);
  std::vector<std::optional<client::StepOutcome>> outcomes(episodes);
  for (int step = 0; step < steps; ++step) {
    std::vector<client::StepRow> rows(episodes);
    for (int i = 0; i < episodes; ++i) {
      rows[i].episode = handles[i];
      rows[i].step = step;
      rows[i].previous_outcome = outcomes[i];
      rows[i].input = RandomInput(spec, random);
    }
    const auto answers = OrDie(client.GetAction(rows));
    for (int i = 0; i < episodes; ++i) {
      client::StepOutcome outcome;
      outcome.reward = std::uniform_real_distribution<float>(-1, 1)(random);
      if (driver >= 0) {
        outcome.effective_choice =
            static_cast<int32_t>(answers[i].actions[driver]);
      }
      recorders[i].Add(rows[i].input, answers[i], outcome);
      outcomes[i] = outcome;
    }
  }

  std::vector<client::EpisodeClose> closes(episodes);
  for (int i = 0; i < episodes; ++i) {
    closes[i].episode = handles[i];
    closes[i].steps = steps;
    closes[i].last_outcome = outcomes[i];
    const bool truncated = i % 2 == 0;
    closes[i].end_kind =
        truncated ? v1::END_KIND_TRUNCATED : v1::END_KIND_TERMINATED;
    if (truncated) closes[i].final_input = RandomInput(spec, random);
  }
  const auto closed = OrDie(client.CloseEpisodes(closes));
  v1::TrajectoryBatch batch;
  for (int i = 0; i < episodes; ++i) {
    *batch.add_trajectories() =
        recorders[i].Finish(spec.Digest(), starts[i].environment_key,
                            closes[i].end_kind, closed[i].bootstrap_value);
  }
  return batch;
}

}  // namespace esper::testing
