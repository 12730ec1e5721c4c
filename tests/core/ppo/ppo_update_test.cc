#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include "ATen/Parallel.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/full.h"
#include "core/policy/policy_spec.h"
#include "core/ppo/learner.h"
#include "core/ppo/pass.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/core/ppo/golden_tensors.h"
#include "tests/testing/status_matchers.h"

// Whole updates of a tiny network against those of the reference
// implementation, in its own profile.
namespace esper::ppo {
namespace {

using nlohmann::json;

policy::PolicySpec SpecOf(const json& golden) {
  policy::NetworkGrowingOptions options;
  options.slot_ids.clear();
  for (int s = 0; s < golden["slots"].get<int>(); ++s) {
    options.slot_ids.push_back("r0c" + std::to_string(s));
  }
  options.feature_dim = golden["feature_dim"];
  options.hidden_dim = golden["hidden_dim"];
  options.floor_mode = policy::FloorMode::kUpstream;
  return policy::PolicySpec::NetworkGrowing(options);
}

// Entries "<prefix><name>" without the prefix, in the network's own order.
NamedTensors WithPrefix(const tensor::Safetensors& file,
                        const std::string& prefix, const NamedTensors& like) {
  NamedTensors found;
  for (const auto& [name, value] : like) {
    found.emplace_back(name, Get(file, prefix + name));
  }
  return found;
}

// The valid steps of each row of a rollout; rows without one are left out.
std::vector<Trajectory> EpisodesOf(const tensor::Safetensors& file,
                                   const std::string& rollout,
                                   const policy::PolicySpec& spec,
                                   int64_t version) {
  const auto in = [&](const std::string& name) {
    return Get(file, rollout + ".in." + name);
  };
  const auto flag = [&](const std::string& name) {
    return in(name).to(at::kBool);
  };
  std::vector<at::Tensor> actions, log_probs, masks;
  for (const policy::HeadSpec& head : spec.heads) {
    actions.push_back(in("action." + head.name).unsqueeze(2));
    log_probs.push_back(in("behaviour_log_prob." + head.name).unsqueeze(2));
    masks.push_back(flag("mask." + head.name));
  }
  std::vector<Trajectory> episodes;
  for (int64_t b = 0; b < in("valid").size(0); ++b) {
    const int64_t n = in("valid")[b].sum().item<int64_t>();
    if (n == 0) continue;
    const auto row = [b, n](const at::Tensor& x) {
      return x[b].slice(0, 0, n).contiguous();
    };
    Trajectory episode;
    episode.episode = rollout + "/" + std::to_string(b);
    episode.spec_digest = spec.Digest();
    episode.observations = row(in("state"));
    episode.categorical = row(in("blueprint_indices"));
    episode.action_masks = row(at::cat(masks, 2));
    episode.actions = row(at::cat(actions, 2));
    episode.behaviour_log_probs = row(at::cat(log_probs, 2));
    episode.values = row(in("value"));
    episode.rewards = row(in("reward"));
    episode.effective_choices = row(in("effective_op"));
    episode.forced = row(flag("forced"));
    episode.policy_versions = at::full({n}, version, at::kLong);
    episode.contribution_targets = row(in("contribution_target"));
    episode.contribution_mask = row(flag("contribution_mask"));
    episode.contribution_fresh = row(flag("contribution_fresh"));
    const bool truncated = flag("truncated")[b][n - 1].item<bool>();
    episode.end = truncated ? EpisodeEnd::kTruncated : EpisodeEnd::kTerminated;
    if (truncated) {
      episode.bootstrap_value = in("bootstrap_value")[b][n - 1].item<float>();
    }
    episode.initial_h = in("hidden_h0")[b].contiguous();
    episode.initial_c = in("hidden_c0")[b].contiguous();
    episodes.push_back(std::move(episode));
  }
  return episodes;
}

PpoOptions OptionsOf(const json& config, int64_t aux_step) {
  PpoOptions options = PpoOptions::Upstream();
  options.gamma = config["gamma"];
  options.gae_lambda = config["gae_lambda"];
  options.clip_ratio = config["clip_ratio"];
  options.target_kl.reset();
  if (!config["target_kl"].is_null()) {
    options.target_kl = config["target_kl"].get<double>();
  }
  options.entropy.fixed = config["entropy_coef"];
  options.entropy.anneal_updates = config["entropy_anneal_steps"];
  if (!config["entropy_coef_start"].is_null()) {
    options.entropy.start = config["entropy_coef_start"];
    options.entropy.end = config["entropy_coef_end"];
  }
  options.value.target = config["value_coef"];
  options.value.start = 0.1 * options.value.target;
  options.value.warmup_updates = config["value_warmup_steps"];
  options.total_updates = config["total_train_steps"];
  // The reference counts auxiliary updates apart from the others.
  options.contribution.coefficient =
      config["enable_contribution_aux"].get<bool>()
          ? ContributionSchedule().At(aux_step)
          : 0.0;
  options.contribution.warmup_updates = 0;
  // The recorded log-probs are no part of the reference's update.
  options.ratio_refuse = 1e6;
  return options;
}

// A learner with the case's weights and value normaliser.
std::unique_ptr<Learner> LearnerOf(const json& test, const json& golden,
                                   const tensor::Safetensors& file) {
  LearnerConfig config = LearnerConfig::Upstream();
  config.predictor_dropout = false;
  config.learning_rate = test["config"]["lr"];
  config.critic_weight_decay = test["config"]["weight_decay"];
  const policy::PolicySpec spec = SpecOf(golden);
  auto fresh = Learner::Create(spec, config, 0);
  EXPECT_TRUE(fresh.ok()) << fresh.status();
  auto learner = Learner::CreateFromWeights(
      spec, config, WithPrefix(file, "weights.", (*fresh)->Weights()));
  EXPECT_TRUE(learner.ok()) << learner.status();
  const json& before = test["value_normalizer_before"];
  if (!before.is_null()) {
    LearnerState state = (*learner)->Save();
    json text = json::parse(state.json);
    text["values"] = {{"mean", {Number(before["mean"])}},
                      {"variance", {Number(before["var"])}},
                      {"count", Number(before["count"])}};
    text["value_units"]["1"] = std::sqrt(Number(before["var"]) + 1e-4);
    state.json = text.dump();
    EXPECT_TRUE((*learner)->Restore(state).ok());
  }
  return *std::move(learner);
}

void ExpectPass(const ForwardBackwardReport& report, const json& expected) {
  const auto& metrics = report.metrics;
  EXPECT_TRUE(Near(report.approx_kl, Number(expected["approx_kl"]), 2e-4, 1e-6))
      << report.approx_kl << " against " << expected["approx_kl"];
  EXPECT_EQ(report.kl_stop, expected["early_stop"].get<bool>());
  EXPECT_TRUE(
      Near(metrics.at("ratio_max"), Number(expected["ratio_max"]), 2e-4, 1e-6));
  EXPECT_TRUE(Near(metrics.at("clip_fraction"),
                   Number(expected["clip_fraction"]), 2e-4, 1e-6));
  if (report.kl_stop) return;
  const double absolute =
      2e-5 * std::max(1.0, std::fabs(Number(expected["total_without_aux"])));
  const std::pair<const char*, const char*> terms[] = {
      {"policy", "policy_loss"},
      {"value", "value_loss"},
      {"q", "q_aux_loss"},
      {"entropy", "entropy_loss"},
      {"entropy_floor", "entropy_floor_penalty"},
      {"contribution", "aux_contribution_loss"},
      {"entropy_coef", "entropy_coef"},
      {"value_coef", "value_coef"},
      {"floor_factor", "floor_factor"},
      {"gradient_norm", "gradient_norm_before_clip"}};
  for (const auto& [ours, theirs] : terms) {
    EXPECT_TRUE(
        Near(metrics.at(ours), Number(expected[theirs]), 2e-4, absolute))
        << ours << ": " << metrics.at(ours) << " against " << expected[theirs];
  }
  const double total = metrics.at("total") - metrics.at("contribution_coef") *
                                                 metrics.at("contribution");
  EXPECT_TRUE(
      Near(total, Number(expected["total_without_aux"]), 2e-4, absolute));
}

// Advantages and returns as the pass computes them.
void ExpectTargets(const std::vector<Trajectory>& episodes,
                   const PpoOptions& options, double unit,
                   const tensor::Safetensors& file, const std::string& prefix,
                   const at::Tensor& valid) {
  const PassTargets targets = ComputeTargets(
      episodes, options, {1.0, 0.0, [unit](int64_t) { return unit; }});
  const auto stored = [&](const char* name) {
    return Get(file, prefix + name).masked_select(valid);
  };
  at::Tensor normalized = targets.advantages.clone();
  for (int64_t i = 0; i < normalized.numel(); ++i) {
    normalized[i].fill_(
        targets.moments.Normalize(normalized[i].item<double>()));
  }
  const at::Tensor returns = stored(".out.returns");
  ExpectTensorNear(normalized, stored(".out.normalized_advantages"), 1e-5, 2e-5,
                   "advantages");
  ExpectTensorNear(targets.returns, returns, 1e-5,
                   2e-6 * std::max(1.0, LargestOf(returns)), "returns");
}

void RunCase(const json& test, const json& golden,
             const tensor::Safetensors& file) {
  const std::string name = test["name"];
  SCOPED_TRACE(name);
  const auto learner = LearnerOf(test, golden, file);
  const json& config = test["config"];
  int64_t aux_step = test["aux_step_before"];
  for (size_t u = 0; u < test["updates"].size(); ++u) {
    SCOPED_TRACE("update " + std::to_string(u));
    const json& update = test["updates"][u];
    const std::string rollout = update["rollout"];
    const auto episodes =
        EpisodesOf(file, rollout, learner->spec(), learner->policy_version());
    PpoOptions options = OptionsOf(config, aux_step);
    ExpectTargets(episodes, options, learner->published()->value_unit, file,
                  name + ".u" + std::to_string(u),
                  Get(file, rollout + ".in.valid").to(at::kBool));
    EXPECT_EQ(learner->updates(), update["train_steps_before"]);
    OptimStepOptions step;
    step.max_grad_norm = config["max_grad_norm"];
    const int64_t passes = config["recurrent_n_epochs"];
    const json& epochs = update["epochs"];
    for (int64_t k = 0; k < passes; ++k) {
      SCOPED_TRACE("pass " + std::to_string(k));
      ASSERT_LT(k, static_cast<int64_t>(epochs.size()));
      options.update_statistics = k == 0;
      const auto report = learner->ForwardBackward(episodes, options);
      ASSERT_OK(report);
      ExpectPass(*report, epochs[k]);
      if (k == 0) {
        EXPECT_TRUE(Near(report->metrics.at("explained_variance"),
                         Number(update["explained_variance"]), 1e-3, 1e-4));
        EXPECT_TRUE(Near(report->metrics.at("advantage_std"),
                         Number(update["pre_norm_advantage_std"]), 1e-5, 1e-5));
        EXPECT_TRUE(Near(learner->value_sigma(),
                         Number(update["value_target_scale"]), 2e-5, 1e-6));
      }
      if (report->kl_stop) break;
      ASSERT_OK(learner->OptimStep(step));
    }
    const json values = json::parse(learner->Save().json)["values"];
    const json& after = update["value_normalizer_after"];
    EXPECT_TRUE(Near(values["mean"][0], Number(after["mean"]), 2e-5, 1e-5));
    EXPECT_TRUE(Near(values["variance"][0], Number(after["var"]), 2e-5, 1e-5));
    EXPECT_EQ(Number(values["count"]), Number(after["count"]));
    learner->Publish();
    aux_step += 1;
    EXPECT_EQ(learner->updates(), update["train_steps_after"]);
    EXPECT_EQ(aux_step, update["aux_step_after"].get<int64_t>());
  }
  const double tolerance = 2e-6 + 0.02 * config["lr"].get<double>();
  for (const auto& [entry, weight] : learner->Weights()) {
    if (!weight.is_floating_point()) continue;
    ExpectTensorNear(weight, Get(file, name + ".weights_after." + entry), 0,
                     tolerance, entry);
  }
}

TEST(PpoUpdateTest, WholeUpdatesAgreeWithTheReferenceImplementation) {
  at::set_num_threads(1);
  const json golden = LoadGolden("ppo_update.json");
  const auto file = LoadGoldenTensors("ppo_update.safetensors");
  ASSERT_FALSE(golden["cases"].empty());
  for (const json& test : golden["cases"]) RunCase(test, golden, file);
}

}  // namespace
}  // namespace esper::ppo
