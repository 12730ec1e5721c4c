#include "tests/testing/rollout.h"

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/mask_packing.h"
#include "client/policy_client.h"
#include "client/tensor.h"
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

std::vector<uint8_t> AllowAll(const policy::PolicySpec& spec) {
  client::MaskLayout layout;
  const int64_t conditional = spec.ConditionalHead();
  layout.driver_actions = spec.heads[spec.DriverOf(conditional)].size;
  layout.conditional_choices = spec.heads[conditional].size;
  client::MaskRow row;
  row.conditional.assign(layout.driver_actions * layout.conditional_choices,
                         true);
  for (int64_t k = 0; k < spec.num_heads(); ++k) {
    if (k == conditional) continue;
    layout.head_sizes.push_back(spec.heads[k].size);
    row.heads.emplace_back(spec.heads[k].size, true);
  }
  return OrDie(client::PackMask(layout, row));
}

// What one episode has recorded, as flat rows.
struct Recording {
  std::vector<float> observations, log_probs, values, rewards;
  std::vector<int8_t> categorical;
  std::vector<uint8_t> masks, actions, effective, forced;
  std::vector<int64_t> versions;

  v1::Trajectory ToMessage(const policy::PolicySpec& spec,
                           const std::string& key) const {
    const int64_t steps = static_cast<int64_t>(rewards.size());
    const int64_t heads = spec.num_heads();
    auto columns = [steps](const auto& rows) {
      return static_cast<int64_t>(rows.size()) / steps;
    };
    v1::Trajectory message;
    message.set_spec_digest(spec.Digest());
    message.set_episode_key(key);
    *message.mutable_observations() =
        client::PackTensor(observations, {steps, columns(observations)});
    *message.mutable_categorical() =
        client::PackTensor(categorical, {steps, columns(categorical)});
    *message.mutable_action_masks() =
        client::PackTensor(masks, {steps, columns(masks)});
    *message.mutable_actions() = client::PackTensor(actions, {steps, heads});
    v1::BehaviourNumbers* behaviour = message.mutable_behaviour();
    behaviour->set_kind(v1::NUMBER_KIND_BEHAVIOUR);
    *behaviour->mutable_log_probs() =
        client::PackTensor(log_probs, {steps, heads});
    *behaviour->mutable_values() = client::PackTensor(values, {steps});
    *message.mutable_policy_versions() = client::PackTensor(versions, {steps});
    *message.mutable_rewards() = client::PackTensor(rewards, {steps});
    *message.mutable_effective_choices() =
        client::PackTensor(effective, {steps});
    *message.mutable_forced() = client::PackBools(forced, {steps});
    return message;
  }
};

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
  const int64_t op = spec.HeadIndex(spec.q_head);

  std::vector<Recording> recordings(episodes);
  std::vector<std::optional<client::StepOutcome>> outcomes(episodes);
  for (int step = 0; step < steps; ++step) {
    std::vector<client::StepRow> rows(episodes);
    for (int i = 0; i < episodes; ++i) {
      rows[i] = {handles[i], step, outcomes[i], RandomInput(spec, random)};
    }
    const auto answers = OrDie(client.GetAction(rows));
    for (int i = 0; i < episodes; ++i) {
      Recording& r = recordings[i];
      auto append = [](auto& to, const auto& from) {
        to.insert(to.end(), from.begin(), from.end());
      };
      append(r.observations, rows[i].input.observation);
      append(r.categorical, rows[i].input.categorical);
      append(r.masks, rows[i].input.packed_mask);
      append(r.actions, answers[i].actions);
      append(r.log_probs, answers[i].log_probs);
      r.values.push_back(answers[i].value);
      r.versions.push_back(answers[i].policy_version);
      r.effective.push_back(static_cast<uint8_t>(answers[i].actions[op]));
      r.forced.push_back(0);
      r.rewards.push_back(std::uniform_real_distribution<float>(-1, 1)(random));
      outcomes[i] = client::StepOutcome();
      outcomes[i]->reward = r.rewards.back();
      outcomes[i]->effective_choice = r.effective.back();
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
    v1::Trajectory* message = batch.add_trajectories();
    *message = recordings[i].ToMessage(spec, starts[i].environment_key);
    message->set_end_kind(closes[i].end_kind);
    if (closes[i].final_input) {
      message->set_bootstrap_value(closed[i].bootstrap_value);
    }
  }
  return batch;
}

}  // namespace esper::testing
