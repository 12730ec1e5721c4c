#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/Parallel.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/full.h"
#include "core/policy/policy_spec.h"
#include "core/ppo/learner.h"
#include "core/ppo/pass.h"
#include "tests/golden/training_parity/cases.h"
#include "tests/golden/training_parity/tensor_checks.h"

// Whole updates of a tiny network, in the reference implementation's profile.
namespace esper::testing {
namespace {

using nlohmann::json;
using ppo::Learner;
using ppo::PpoOptions;
using ppo::Trajectory;

template <typename T>
T OrThrow(absl::StatusOr<T> value) {
  if (!value.ok()) throw std::runtime_error(value.status().ToString());
  return *std::move(value);
}

policy::PolicySpec SpecOf(const json& golden, const tensor::Safetensors& file) {
  policy::NetworkGrowingOptions options;
  options.slot_ids.clear();
  for (int s = 0; s < golden.at("slots").get<int>(); ++s) {
    options.slot_ids.push_back("r0c" + std::to_string(s));
  }
  options.feature_dim = golden.at("feature_dim");
  options.hidden_dim = golden.at("hidden_dim");
  while (file.Find(absl::StrCat("weights.lstm.layers.", options.lstm_layers,
                                ".weight_hh_l0")) != nullptr) {
    ++options.lstm_layers;
  }
  options.floor_mode = policy::FloorMode::kUpstream;
  return policy::PolicySpec::NetworkGrowing(options);
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
    episode.end =
        truncated ? ppo::EpisodeEnd::kTruncated : ppo::EpisodeEnd::kTerminated;
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
  const auto number = [&](const char* key) {
    return GoldenNumber(config.at(key));
  };
  PpoOptions options = PpoOptions::Upstream();
  options.gamma = number("gamma");
  options.gae_lambda = number("gae_lambda");
  options.clip_ratio = number("clip_ratio");
  options.target_kl.reset();
  if (!config.at("target_kl").is_null())
    options.target_kl = number("target_kl");
  options.entropy.fixed = number("entropy_coef");
  options.entropy.anneal_updates = config.at("entropy_anneal_steps");
  options.entropy.start =
      NumberOr(config, "entropy_coef_start", options.entropy.fixed);
  options.entropy.end =
      NumberOr(config, "entropy_coef_end", options.entropy.fixed);
  options.entropy.minimum =
      NumberOr(config, "entropy_coef_min", options.entropy.minimum);
  options.value.target = number("value_coef");
  options.value.start =
      NumberOr(config, "value_coef_start", 0.1 * options.value.target);
  options.value.warmup_updates = config.at("value_warmup_steps");
  options.total_updates = config.at("total_train_steps");
  // The reference counts auxiliary updates apart from the others.
  options.contribution.coefficient =
      config.at("enable_contribution_aux").get<bool>()
          ? ppo::ContributionSchedule().At(aux_step)
          : 0.0;
  options.contribution.warmup_updates = 0;
  // The recorded log-probs are no part of the reference's update.
  options.ratio_refuse = 1e6;
  return options;
}

// A learner with the case's weights and value normaliser. The rollouts hold
// observations and rewards that are normalised already.
std::unique_ptr<Learner> LearnerOf(const json& golden_case, const json& golden,
                                   const tensor::Safetensors& file) {
  ppo::LearnerConfig config = ppo::LearnerConfig::Upstream();
  config.normalize_observations = false;
  config.scale_rewards = false;
  config.predictor_dropout = false;
  config.learning_rate = GoldenNumber(golden_case.at("config").at("lr"));
  config.critic_weight_decay =
      GoldenNumber(golden_case.at("config").at("weight_decay"));
  const policy::PolicySpec spec = SpecOf(golden, file);
  ppo::NamedTensors weights;
  for (const auto& [name, value] :
       OrThrow(Learner::Create(spec, config, 0))->Weights()) {
    weights.emplace_back(name, Get(file, "weights." + name));
  }
  auto learner = OrThrow(Learner::CreateFromWeights(spec, config, weights));
  const json& before = golden_case.at("value_normalizer_before");
  if (before.is_null()) return learner;
  ppo::LearnerState state = learner->Save();
  json text = json::parse(state.json);
  const double variance = GoldenNumber(before.at("var"));
  const json moments = {{"mean", {GoldenNumber(before.at("mean"))}},
                        {"variance", {variance}},
                        {"count", GoldenNumber(before.at("count"))}};
  text["statistics"]["values"] = moments;
  text["update_start"]["statistics"]["values"] = moments;
  text["value_units"]["1"] = std::sqrt(variance + 1e-4);
  state.json = text.dump();
  const absl::Status restored = learner->Restore(state);
  if (!restored.ok()) throw std::runtime_error(restored.ToString());
  return learner;
}

void CheckPass(const std::string& prefix,
               const ppo::ForwardBackwardReport& report, const json& expected,
               GoldenReport::Case* check) {
  const auto& metrics = report.metrics;
  const auto near = [&](const std::string& name, double actual, const char* key,
                        double absolute) {
    check->Near(prefix + name, actual, GoldenNumber(expected.at(key)), 2e-4,
                absolute);
  };
  near("approx_kl", report.approx_kl, "approx_kl", 1e-6);
  near("ratio_max", metrics.at("ratio_max"), "ratio_max", 1e-6);
  near("clip_fraction", metrics.at("clip_fraction"), "clip_fraction", 1e-6);
  check->Equal(prefix + "early_stop", report.kl_stop,
               expected.at("early_stop").get<bool>());
  if (report.kl_stop) return;
  const double absolute =
      2e-5 *
      std::max(1.0, std::fabs(GoldenNumber(expected.at("total_without_aux"))));
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
    near(ours, metrics.at(ours), theirs, absolute);
  }
  near("total without contribution",
       metrics.at("total") -
           metrics.at("contribution_coef") * metrics.at("contribution"),
       "total_without_aux", absolute);
}

// Advantages and returns as the first pass computes them.
void CheckTargets(const std::string& prefix,
                  const std::vector<Trajectory>& episodes,
                  const PpoOptions& options, double unit,
                  const tensor::Safetensors& file, const std::string& tensors,
                  const at::Tensor& valid, GoldenReport::Case* check) {
  const ppo::PassTargets targets = ComputeTargets(
      episodes, options, {1.0, 0.0, [unit](int64_t) { return unit; }, {}});
  const auto stored = [&](const char* name) {
    return Get(file, tensors + name).masked_select(valid);
  };
  at::Tensor normalized = targets.advantages.clone();
  for (int64_t i = 0; i < normalized.numel(); ++i) {
    normalized[i].fill_(
        targets.moments.Normalize(normalized[i].item<double>()));
  }
  const at::Tensor returns = stored(".out.returns");
  CheckTensor(prefix + "normalized advantages", normalized,
              stored(".out.normalized_advantages"), 1e-5, 2e-5, check);
  CheckTensor(prefix + "returns", targets.returns, returns, 1e-5,
              2e-6 * std::max(1.0, LargestOf(returns)), check);
}

void CheckValueNormalizer(const std::string& prefix, const Learner& learner,
                          const json& after, GoldenReport::Case* check) {
  const json values = json::parse(learner.Save().json)["statistics"]["values"];
  check->Near(prefix + "value mean", values["mean"][0],
              GoldenNumber(after.at("mean")), 2e-5, 1e-5);
  check->Near(prefix + "value variance", values["variance"][0],
              GoldenNumber(after.at("var")), 2e-5, 1e-5);
  check->Near(prefix + "value count", values["count"],
              GoldenNumber(after.at("count")), 0, 0);
}

void CheckUpdate(const std::string& prefix, const std::string& tensors,
                 const json& config, const json& update, int64_t aux_step,
                 const tensor::Safetensors& file, Learner& learner,
                 GoldenReport::Case* check) {
  const std::string rollout = update.at("rollout");
  const auto episodes =
      EpisodesOf(file, rollout, learner.spec(), learner.policy_version());
  PpoOptions options = OptionsOf(config, aux_step);
  CheckTargets(prefix, episodes, options, learner.published()->value_unit, file,
               tensors, Get(file, rollout + ".in.valid").to(at::kBool), check);
  check->Equal<int64_t>(prefix + "train_steps_before", learner.updates(),
                        update.at("train_steps_before"));
  ppo::OptimStepOptions step;
  step.max_grad_norm = GoldenNumber(config.at("max_grad_norm"));
  const json& epochs = update.at("epochs");
  const int64_t passes = config.at("recurrent_n_epochs");
  bool stopped = false;
  for (int64_t k = 0; k < passes && !stopped; ++k) {
    const std::string pass = absl::StrCat(prefix, "pass ", k, " ");
    options.update_statistics = k == 0;
    const auto report = OrThrow(learner.ForwardBackward(episodes, options));
    CheckPass(pass, report, epochs.at(k), check);
    if (k == 0) {
      check->Near(pass + "explained_variance",
                  report.metrics.at("explained_variance"),
                  GoldenNumber(update.at("explained_variance")), 1e-3, 1e-4);
      check->Near(pass + "advantage_std", report.metrics.at("advantage_std"),
                  GoldenNumber(update.at("pre_norm_advantage_std")), 1e-5,
                  1e-5);
      check->Near(pass + "value_sigma", learner.value_sigma(),
                  GoldenNumber(update.at("value_target_scale")), 2e-5, 1e-6);
    }
    stopped = report.kl_stop;
    if (stopped) {
      check->Equal<int64_t>(prefix + "passes", k + 1,
                            static_cast<int64_t>(epochs.size()));
    } else {
      OrThrow(learner.OptimStep(step));
    }
  }
  CheckValueNormalizer(prefix, learner, update.at("value_normalizer_after"),
                       check);
  learner.Publish();
  check->Equal<int64_t>(prefix + "train_steps_after", learner.updates(),
                        update.at("train_steps_after"));
}

void CheckCase(const json& golden_case, const json& golden,
               const tensor::Safetensors& file, GoldenReport::Case* check) {
  const std::string name = golden_case.at("name");
  const json& config = golden_case.at("config");
  const auto learner = LearnerOf(golden_case, golden, file);
  int64_t aux_step = golden_case.at("aux_step_before");
  int number = 0;
  for (const json& update : golden_case.at("updates")) {
    CheckUpdate(absl::StrCat("update ", number, " "),
                absl::StrCat(name, ".u", number), config, update, aux_step,
                file, *learner, check);
    aux_step = update.at("aux_step_after");
    ++number;
  }
  const double tolerance = 2e-6 + 0.02 * GoldenNumber(config.at("lr"));
  for (const auto& [entry, weight] : learner->Weights()) {
    if (!weight.is_floating_point()) continue;
    CheckTensor(entry, weight, Get(file, name + ".weights_after." + entry), 0,
                tolerance, check);
  }
}

}  // namespace

void CheckUpdates(const GoldenJson& file, GoldenReport* report) {
  at::set_num_threads(1);
  const tensor::Safetensors tensors = ReadTensors(file.TensorPath());
  for (const json& golden : file.content.at("cases")) {
    const std::string name =
        absl::StrCat(file.name, "/", golden.at("name").get<std::string>());
    if (!DeviationOf(golden).is_null()) {
      report->Skip(name, DeviationOf(golden).dump());
      continue;
    }
    RunCase(report, name, [&](GoldenReport::Case* check) {
      CheckCase(golden, file.content, tensors, check);
    });
  }
}

}  // namespace esper::testing
