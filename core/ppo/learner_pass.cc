#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ATen/TensorOperators.h"
#include "ATen/ops/isfinite.h"
#include "ATen/ops/zeros_like.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "core/error.h"
#include "core/policy/loss_builder.h"
#include "core/ppo/learner_core.h"
#include "core/ppo/lstm_health.h"
#include "core/ppo/options_json.h"
#include "core/ppo/pass_metrics.h"
#include "nlohmann/json.hpp"

namespace esper::ppo {
namespace {

absl::Span<const float> SpanOf(const at::Tensor& x) {
  return {x.const_data_ptr<float>(), static_cast<size_t>(x.numel())};
}

bool Finite(const at::Tensor& x) {
  return !x.defined() || at::isfinite(x.detach()).all().item<bool>();
}

void ThrowIfError(const absl::Status& status) {
  if (status.ok()) return;
  throw Error(status.code(), DetailOf(status).value_or(ErrorDetail()),
              std::string(status.message()));
}

}  // namespace

// One forward-backward pass. What it changes on the way (the value heads, the
// gradients) it puts back unless it gets to its end.
class PassRunner {
 public:
  PassRunner(LearnerCore& learner, absl::Span<const Trajectory> trajectories,
             const PpoOptions& options)
      : learner_(learner),
        trajectories_(trajectories),
        options_(options),
        draft_(learner.statistics) {}
  ~PassRunner() {
    if (!committed_) Undo();
  }

  ForwardBackwardReport Run() {
    options_.Check();
    heads_ = ResolveHeads(options_, learner_.spec);
    prepared_ = learner_.Prepare(trajectories_);
    targets_ = ComputeTargets(trajectories_, options_, Units());
    report_.episodes = static_cast<int64_t>(trajectories_.size());
    report_.transitions = prepared_.batch.steps();
    if (options_.update_statistics) DraftStatistics();
    SetCoefficients();
    if (!EvaluateInputs()) return Skip();
    CheckRatios();
    FillTotals();
    if (!ComputeTerms()) return Skip();
    if (!options_.totals_only && !report_.kl_stop && !Backward()) {
      return Skip();
    }
    Commit();
    return std::move(report_);
  }

 private:
  const TrajectoryBatch& batch() const { return prepared_.batch; }

  // One of several calls whose gradients add up to one step.
  bool part() const {
    return options_.totals.has_value() && !options_.minibatch;
  }

  RewardUnits Units() {
    const LearnerConfig& config = learner_.config;
    RewardUnits units;
    units.deviation = learner_.deviation;
    // Raw rewards have no known size to clip at.
    units.clip = learner_.deviation != 1.0 ? options_.reward_clip : 0.0;
    units.value_unit = [this](int64_t version) {
      return learner_.value_units.at(version);
    };
    if (!config.scale_rewards ||
        config.reward_scaling != RewardScaling::kUpstream) {
      return units;
    }
    if (options_.totals.has_value() || options_.minibatch) {
      RefuseCall("MALFORMED_REQUEST", "totals",
                 "Upstream's reward scaling depends on the order of steps over "
                 "the whole batch, of which this call is a part.",
                 "Send whole batches, or scale by the deviation of returns.");
    }
    // From where the update began: every pass sees the same rewards.
    RewardNormalizer normalizer = learner_.start.statistics.rewards;
    units.rewards = NormalizeRewards(trajectories_, &normalizer);
    if (options_.update_statistics) draft_.rewards = normalizer;
    return units;
  }

  void DraftStatistics() {
    ThrowIfError(
        draft_.observations.Update(batch().Flatten(batch().observations)));
    for (const Trajectory& row : trajectories_) {
      ThrowIfError(draft_.returns.Update(SpanOf(row.rewards), options_.gamma));
    }
    ThrowIfError(draft_.values.Update(SpanOf(targets_.returns)));
    if (!learner_.config.popart) return;
    const double before = learner_.SigmaOf(learner_.statistics.values);
    const double after = learner_.SigmaOf(draft_.values);
    if (before == after) return;
    // Multiplying back would not restore every bit.
    weights_before_ = learner_.network->StateDict();
    moved_before_ = learner_.moved_since_publish;
    learner_.RescaleValueHeads(before / after);
  }

  void SetCoefficients() {
    LossOptions& loss = report_.effective;
    const int64_t updates = learner_.counters.updates;
    loss.clip_ratio = options_.clip_ratio;
    loss.value_clip = options_.value_clip;
    loss.contribution_clip = options_.contribution_clip;
    loss.value_coef = options_.value.At(updates);
    loss.q_coef = 0.5 * loss.value_coef;
    loss.entropy_coef = options_.entropy.At(updates);
    loss.contribution_coef = options_.contribution.At(updates);
    loss.floor_factor =
        options_.total_updates > 0
            ? FloorPenaltyFactor(static_cast<double>(updates) /
                                 static_cast<double>(options_.total_updates))
            : 1.0;
    loss.entropy_multipliers = heads_.multipliers;
    loss.entropy_floors = heads_.floors;
    loss.entropy_floor_coefs = heads_.floor_coefs;
    loss.policy_mean = options_.policy_mean;
    loss.entropy_over = options_.entropy_over;
    loss.statistics_over = options_.statistics_over;
  }

  // False if an output is not finite.
  bool EvaluateInputs() {
    const HeadUse use = ComputeHeadUse(batch(), learner_.rules);
    recorded_ = policy::BehaviourTensor::FromRecorded(
        batch().behaviour_log_probs, learner_.RecordedOrigin());
    policy::BehaviourTensor before = recorded_;
    try {
      if (options_.denominator == RatioDenominator::kAnchor) {
        before = policy::EvaluateReference(learner_.Anchor(), prepared_.inputs,
                                           learner_.Evaluating())
                     .log_probs;
      }
      if (options_.totals_only) {
        const policy::ReferenceEvaluation now = policy::EvaluateReference(
            *learner_.network, prepared_.inputs, learner_.Evaluating());
        state_ = now.state;
        log_probs_ = at::zeros_like(batch().behaviour_log_probs);
        now.log_probs.CopyTo(log_probs_);
        inputs_ = BindInputs(now, before, batch(), use);
      } else {
        learner_.SeedDropout(static_cast<uint64_t>(learner_.counters.passes));
        now_ = policy::EvaluateActions(*learner_.network, prepared_.inputs,
                                       learner_.Evaluating());
        state_ = {now_.state.h.detach(), now_.state.c.detach()};
        log_probs_ = now_.log_probs.tensor().detach();
        inputs_ = BindInputs(now_, before, batch(), use);
      }
    } catch (const NonFiniteError& error) {
      if (error.reason() != "NONFINITE_LOGITS") throw;
      report_.nonfinite_term = error.detail().tensor;
      return false;
    }
    const AdvantageMoments moments = TotalMoments();
    const double sigma = learner_.SigmaOf(draft_.values);
    const double spread =
        std::max(moments.deviation(), AdvantageMoments::kDeviationFloor) + 1e-8;
    inputs_.advantages = (targets_.advantages - moments.mean()) / spread;
    inputs_.value_targets = targets_.returns / sigma;
    inputs_.old_values = targets_.values / sigma;
    const std::pair<const char*, at::Tensor> outputs[] = {
        {"log_probs", inputs_.log_probs},
        {"old_log_probs", inputs_.old_log_probs},
        {"values", inputs_.values},
        {"q_values", inputs_.q_values},
        {"returns", inputs_.value_targets}};
    for (const auto& [name, tensor] : outputs) {
      if (Finite(tensor)) continue;
      report_.nonfinite_term = name;
      return false;
    }
    return true;
  }

  AdvantageMoments TotalMoments() const {
    if (!options_.totals.has_value()) return targets_.moments;
    return AdvantageMoments(options_.totals->advantage_count,
                            options_.totals->advantage_mean,
                            options_.totals->advantage_std);
  }

  void CheckRatios() {
    at::Tensor now = log_probs_;
    if (learner_.counters.steps_since_publish > 0) {
      // Later passes of an update have moved on by design. A first pass on
      // moved weights means that an update was left unfinished: the published
      // weights are the ones that acted.
      if (!options_.update_statistics) return;
      now = at::zeros_like(batch().behaviour_log_probs);
      policy::EvaluateReference(learner_.Anchor(), prepared_.inputs,
                                learner_.Evaluating())
          .log_probs.CopyTo(now);
    }
    // Up to the first step of another version: behind it the recurrent state
    // was made by other weights, and differs rightly.
    const at::Tensor current =
        batch().policy_versions.eq(learner_.counters.version);
    const at::Tensor counted = batch().valid.logical_and(
        current.to(at::kLong).cumprod(1).to(at::kBool));
    const LogProbDifference difference =
        CompareLogProbs(now, batch().behaviour_log_probs, counted);
    if (difference.steps == 0) return;
    report_.ratio_check_max = difference.max;
    report_.ratio_check_mean = difference.mean;
    const bool bf16 =
        learner_.config.precision == policy::TrainingPrecision::kBf16;
    const double refuse =
        std::max(options_.ratio_refuse, bf16 ? kBf16RatioRefuse : 0.0);
    report_.ratio_alarm =
        difference.max >
        std::max(options_.ratio_alarm, bf16 ? kBf16RatioAlarm : 0.0);
    if (difference.max <= refuse) return;
    ErrorDetail detail;
    detail.reason = "BEHAVIOUR_MISMATCH";
    detail.field = learner_.spec.heads[difference.head].name;
    detail.row = difference.row;
    detail.step = difference.step;
    detail.tensor = "behaviour_log_probs";
    detail.hint =
        "Send observations, masks and initial state exactly as they were "
        "acted on.";
    throw Error(
        CodeOfReason(detail.reason), detail,
        absl::StrCat("The recorded log-probability of head ", detail.field,
                     " in row ", difference.row, " at step ", difference.step,
                     " differs by ", difference.max,
                     " from what the same version gives now; the limit is ",
                     refuse, "."));
  }

  void FillTotals() {
    report_.totals = ComputeTotals(inputs_, report_.effective);
    report_.totals.advantage_count = targets_.moments.count();
    report_.totals.advantage_mean = targets_.moments.mean();
    report_.totals.advantage_std = targets_.moments.deviation();
    if (!options_.totals.has_value()) return;
    const size_t heads = report_.totals.head_steps.size();
    const BatchTotals& given = *options_.totals;
    if (given.head_steps.size() != heads ||
        given.available_steps.size() != heads ||
        given.mean_entropies.size() != heads) {
      throw ShapeError("totals", absl::StrCat(heads, " heads"),
                       absl::StrCat(given.head_steps.size()));
    }
  }

  // False if a term is not finite.
  bool ComputeTerms() {
    const BatchTotals& totals = part() ? *options_.totals : report_.totals;
    ratios_ = ComputeRatioStatistics(inputs_, report_.effective);
    report_.approx_kl = ratios_.approx_kl;
    report_.kl_stop =
        !part() && options_.target_kl.has_value() &&
        ratios_.approx_kl > options_.kl_stop_factor * *options_.target_kl;
    terms_ = ComputeLoss(inputs_, report_.effective, totals);
    AddMetrics();
    for (const auto& [name, term] : Terms()) {
      if (Finite(term)) continue;
      report_.nonfinite_term = name;
      return false;
    }
    return true;
  }

  std::vector<std::pair<std::string, at::Tensor>> Terms() const {
    return {{"policy", terms_.policy},
            {"value", terms_.value},
            {"q", terms_.q},
            {"entropy", terms_.entropy},
            {"entropy_floor", terms_.entropy_floor},
            {"contribution", terms_.contribution},
            {"total", terms_.total}};
  }

  // False if a gradient is not finite.
  bool Backward() {
    earlier_ = learner_.TakeGradients();
    took_gradients_ = true;
    std::vector<std::string> heads;
    for (const policy::HeadSpec& head : learner_.spec.heads) {
      heads.push_back(head.name);
    }
    const LossOptions& loss = report_.effective;
    policy::LossBuilder builder(*learner_.network);
    builder.AddPolicyTerm("policy", terms_.policy, heads);
    builder.AddTerm("value", terms_.value, loss.value_coef);
    builder.AddTerm("entropy", terms_.entropy, loss.entropy_coef);
    if (terms_.entropy_floor.defined()) {
      builder.AddTerm("entropy_floor", terms_.entropy_floor);
    }
    if (terms_.q.defined()) builder.AddTerm("q", terms_.q, loss.q_coef);
    if (terms_.contribution.defined()) {
      builder.AddTerm("contribution", terms_.contribution,
                      loss.contribution_coef);
    }
    builder.Backward();
    const std::string bad = learner_.FirstNonFiniteGradient();
    if (!bad.empty()) {
      report_.nonfinite_term = absl::StrCat("gradient of ", bad);
      return false;
    }
    std::vector<at::Tensor> gradients;
    for (const at::Tensor& parameter : learner_.parameters) {
      gradients.push_back(parameter.grad());
    }
    report_.metrics["gradient_norm"] = GlobalNorm(gradients);
    AddGradientMetrics(*learner_.network, &report_.metrics);
    learner_.AddGradients(earlier_);
    report_.accumulated = true;
    return true;
  }

  void AddMetrics() {
    auto& metrics = report_.metrics;
    for (const auto& [name, term] : Terms()) {
      if (term.defined()) metrics[name] = term.item<double>();
    }
    const policy::PolicySpec& spec = learner_.spec;
    const BatchTotals& totals = report_.totals;
    AddRatioMetrics(spec, ratios_, &metrics);
    AddHeadMetrics(spec, inputs_, batch().Flatten(batch().action_masks), totals,
                   &metrics);
    AddValueMetrics(targets_, &metrics);
    AddContributionMetrics(inputs_, &metrics);
    const LossOptions& loss = report_.effective;
    metrics["value_coef"] = loss.value_coef;
    metrics["entropy_coef"] = loss.entropy_coef;
    metrics["contribution_coef"] = loss.contribution_coef;
    metrics["floor_factor"] = loss.floor_factor;
    metrics["value_sigma"] = learner_.SigmaOf(draft_.values);
    metrics["reward_deviation"] = learner_.deviation;
    double total_return = 0;
    for (const Trajectory& row : trajectories_) {
      total_return += row.rewards.sum(at::kDouble).item<double>();
    }
    metrics["episode_return"] =
        total_return / static_cast<double>(trajectories_.size());
    metrics["forced_share"] =
        1.0 - totals.unforced_steps / std::max(totals.valid_steps, 1.0);
    metrics["version_lag"] = static_cast<double>(learner_.counters.version) -
                             batch()
                                 .Flatten(batch().policy_versions)
                                 .to(at::kDouble)
                                 .mean()
                                 .item<double>();
    metrics["floor_scale"] = learner_.snapshot->floor_scale;
  }

  // Once per update: what its first pass finds in the memory and the network.
  void Diagnose() {
    if (part()) return;
    std::vector<std::string>& names = report_.anomalies;
    if (options_.update_statistics) {
      AddQMetrics(*learner_.network, prepared_.inputs, &report_.metrics);
      const LstmHealth health = MeasureLstm(state_.h, state_.c);
      AddStateMetrics(health, &report_.metrics);
      names = health.Anomalies();
      for (size_t k = 0; k < learner_.spec.heads.size(); ++k) {
        if (report_.totals.available_steps[k] == 0) continue;
        const auto name = learner_.collapse.Update(
            learner_.spec.heads[k].name, report_.totals.mean_entropies[k]);
        if (name.has_value()) names.push_back(*name);
      }
    }
    AnomalyInputs inputs;
    inputs.ratio_max = ratios_.joint_max;
    inputs.ratio_min = ratios_.joint_min;
    for (const auto& [name, value] : report_.metrics) {
      if (!std::isfinite(value)) inputs.nonfinite_metric = true;
    }
    inputs.any_unforced = report_.totals.unforced_steps > 0;
    inputs.value_loss = report_.metrics.at("value");
    inputs.bellman_error = report_.metrics.at("bellman_error");
    inputs.entropy = report_.metrics.at("mean_entropy");
    inputs.kl = ratios_.approx_kl;
    for (std::string& name : DetectAnomalies(inputs)) {
      names.push_back(std::move(name));
    }
  }

  void Commit() {
    Diagnose();
    committed_ = true;
    learner_.pass_options = ToJson(options_).dump();
    if (options_.update_statistics) {
      learner_.statistics = draft_;
      learner_.counters.transitions += report_.transitions;
    }
    if (report_.accumulated) learner_.counters.passes += 1;
  }

  ForwardBackwardReport Skip() {
    Undo();
    committed_ = true;
    report_.skipped_nonfinite = true;
    report_.accumulated = false;
    report_.anomalies = {"numerical_instability"};
    report_.rolled_back = learner_.NoteNonFinite(report_.nonfinite_term);
    return std::move(report_);
  }

  void Undo() {
    if (took_gradients_) learner_.PutGradients(earlier_);
    if (weights_before_.empty()) return;
    learner_.network->LoadStateDict(weights_before_).IgnoreError();
    learner_.moved_since_publish = moved_before_;
  }

  LearnerCore& learner_;
  const absl::Span<const Trajectory> trajectories_;
  const PpoOptions& options_;

  ForwardBackwardReport report_;
  HeadCoefficients heads_;
  PreparedBatch prepared_;
  PassTargets targets_;
  LearnerStatistics draft_;
  policy::BehaviourTensor recorded_;
  policy::Evaluation now_;        // Holds the graph.
  policy::RecurrentState state_;  // After the last step, detached.
  at::Tensor log_probs_;          // float32 [B, T, K], detached.
  LossInputs inputs_;
  RatioStatistics ratios_;
  LossTerms terms_;

  // To undo.
  bool committed_ = false;
  bool took_gradients_ = false;
  std::vector<at::Tensor> earlier_;
  NamedTensors weights_before_;
  bool moved_before_ = false;
};

ForwardBackwardReport LearnerCore::ForwardBackward(
    absl::Span<const Trajectory> trajectories, const PpoOptions& options) {
  const c10::AutoGradMode grad_mode(true);
  return PassRunner(*this, trajectories, options).Run();
}

}  // namespace esper::ppo
