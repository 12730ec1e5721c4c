#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/TensorOperators.h"
#include "ATen/ops/isfinite.h"
#include "ATen/ops/zeros.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "core/error.h"
#include "core/policy/loss_builder.h"
#include "core/ppo/learner_core.h"
#include "core/ppo/pass_diagnosis.h"
#include "core/ppo/pass_objective.h"

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
             const PassOptions& options)
      : learner_(learner),
        trajectories_(trajectories),
        scope_(ScopeOf(options)),
        objective_(MakeObjective(options)),
        draft_(learner.statistics) {}
  ~PassRunner() {
    if (!committed_) Undo();
  }

  ForwardBackwardReport Run() {
    objective_->Check();
    report_.effective =
        objective_->Coefficients(learner_.spec, learner_.counters.updates);
    prepared_ = learner_.Prepare(trajectories_, objective_->use(),
                                 objective_->max_version_lag());
    if (rewarded()) {
      targets_ = ComputeTargets(trajectories_, objective_->returns(), Units());
    }
    report_.episodes = static_cast<int64_t>(trajectories_.size());
    report_.transitions = prepared_.batch.steps();
    if (scope_.update_statistics) DraftStatistics();
    if (!EvaluateInputs()) return Skip();
    if (rewarded()) {
      learner_.CheckRatios(prepared_, log_probs_, scope_.update_statistics,
                           objective_->ratio_limits(), &report_);
    }
    FillTotals();
    if (!ComputeTerms()) return Skip();
    if (!scope_.totals_only && !report_.kl_stop && !Backward()) {
      return Skip();
    }
    Commit();
    return std::move(report_);
  }

 private:
  const TrajectoryBatch& batch() const { return prepared_.batch; }
  // What acting and the environment answered is read.
  bool rewarded() const {
    return objective_->use() == TrajectoryUse::kReinforcement;
  }

  RewardUnits Units() {
    const LearnerConfig& config = learner_.config;
    RewardUnits units;
    units.deviation = learner_.deviation;
    // Raw rewards have no known size to clip at.
    units.clip =
        learner_.deviation != 1.0 ? objective_->returns().reward_clip : 0.0;
    units.value_unit = [this](int64_t version) {
      return learner_.value_units.at(version);
    };
    if (!config.scale_rewards ||
        config.reward_scaling != RewardScaling::kUpstream) {
      return units;
    }
    if (scope_.totals.has_value() || scope_.minibatch) {
      RefuseCall("MALFORMED_REQUEST", "totals",
                 "Upstream's reward scaling depends on the order of steps over "
                 "the whole batch, of which this call is a part.",
                 "Send whole batches, or scale by the deviation of returns.");
    }
    // From where the update began: every pass sees the same rewards.
    RewardNormalizer normalizer = learner_.start.statistics.rewards;
    units.rewards = NormalizeRewards(trajectories_, &normalizer);
    if (scope_.update_statistics) draft_.rewards = normalizer;
    return units;
  }

  void DraftStatistics() {
    ThrowIfError(
        draft_.observations.Update(batch().Flatten(batch().observations)));
    if (!rewarded()) return;
    for (const Trajectory& row : trajectories_) {
      ThrowIfError(draft_.returns.Update(SpanOf(row.rewards),
                                         objective_->returns().gamma));
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

  // What ratios divide by; undefined if the loss reads none.
  policy::BehaviourTensor Denominator() {
    if (!rewarded()) return {};
    if (objective_->anchored()) {
      return policy::EvaluateReference(learner_.Anchor(), prepared_.inputs,
                                       learner_.Evaluating())
          .log_probs;
    }
    return policy::BehaviourTensor::FromRecorded(batch().behaviour_log_probs,
                                                 learner_.RecordedOrigin());
  }

  // False if an output is not finite.
  bool EvaluateInputs() {
    const HeadUse use = ComputeHeadUse(batch(), learner_.rules);
    try {
      const policy::BehaviourTensor before = Denominator();
      if (scope_.totals_only) {
        const policy::ReferenceEvaluation now = policy::EvaluateReference(
            *learner_.network, prepared_.inputs, learner_.Evaluating());
        state_ = now.state;
        log_probs_ = at::zeros(now.log_probs.sizes(), at::kFloat);
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
    objective_->SetTargets(learner_.SigmaOf(draft_.values), &targets_,
                           &inputs_);
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

  void FillTotals() {
    report_.totals = ComputeTotals(inputs_, report_.effective);
    report_.totals.advantage_count = targets_.moments.count();
    report_.totals.advantage_mean = targets_.moments.mean();
    report_.totals.advantage_std = targets_.moments.deviation();
    if (!scope_.totals.has_value()) return;
    const size_t heads = report_.totals.head_steps.size();
    const BatchTotals& given = *scope_.totals;
    if (given.head_steps.size() != heads ||
        given.available_steps.size() != heads ||
        given.mean_entropies.size() != heads) {
      throw ShapeError("totals", absl::StrCat(heads, " heads"),
                       absl::StrCat(given.head_steps.size()));
    }
  }

  // False if a term is not finite.
  bool ComputeTerms() {
    const BatchTotals& totals = scope_.part() ? *scope_.totals : report_.totals;
    if (rewarded())
      ratios_ = ComputeRatioStatistics(inputs_, report_.effective);
    report_.approx_kl = ratios_.approx_kl;
    report_.kl_stop = objective_->StopsAt(ratios_.approx_kl);
    terms_ = objective_->Terms(inputs_, report_.effective, totals);
    LossTerm total = {"total",
                      terms_.front().value * terms_.front().coefficient};
    for (size_t i = 1; i < terms_.size(); ++i) {
      total.value = total.value + terms_[i].coefficient * terms_[i].value;
    }
    for (const LossTerm& term : terms_) {
      report_.metrics[term.name] = term.value.item<double>();
    }
    report_.metrics["total"] = total.value.item<double>();
    AddMetrics();
    for (const LossTerm& term : terms_) {
      if (Finite(term.value)) continue;
      report_.nonfinite_term = term.name;
      return false;
    }
    if (Finite(total.value)) return true;
    report_.nonfinite_term = total.name;
    return false;
  }

  // False if a gradient is not finite.
  bool Backward() {
    earlier_ = learner_.TakeGradients();
    took_gradients_ = true;
    std::vector<std::string> heads;
    for (const policy::HeadSpec& head : learner_.spec.heads) {
      heads.push_back(head.name);
    }
    policy::LossBuilder builder(*learner_.network);
    for (const LossTerm& term : terms_) {
      if (term.trains_policy) {
        builder.AddPolicyTerm(term.name, term.value, heads, term.coefficient);
      } else {
        builder.AddTerm(term.name, term.value, term.coefficient);
      }
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
    Metrics& metrics = report_.metrics;
    const BatchTotals& totals = report_.totals;
    objective_->AddMetrics(learner_.spec, ratios_, report_.effective, &metrics);
    AddHeadMetrics(learner_.spec, inputs_,
                   batch().Flatten(batch().action_masks), totals, &metrics);
    metrics["entropy_coef"] = report_.effective.entropy_coef;
    metrics["value_sigma"] = learner_.SigmaOf(draft_.values);
    metrics["reward_deviation"] = learner_.deviation;
    metrics["floor_scale"] = learner_.snapshot->floor_scale;
    AddBatchMetrics(totals, &metrics);
    if (!rewarded()) return;
    AddValueMetrics(targets_, &metrics);
    AddContributionMetrics(inputs_, &metrics);
    AddOutcomeMetrics(trajectories_, batch(), learner_.counters.version,
                      &metrics);
  }

  void Commit() {
    if (!scope_.part()) {
      PassDiagnosis diagnosis;
      diagnosis.first_pass = scope_.update_statistics;
      diagnosis.ratios = objective_->on_policy() ? &ratios_ : nullptr;
      diagnosis.state = state_;
      Diagnose(*learner_.network, prepared_.inputs, diagnosis,
               &learner_.collapse, &report_);
    }
    committed_ = true;
    learner_.pass_options = objective_->Json();
    if (scope_.update_statistics) {
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
  const PassScope& scope_;
  const std::unique_ptr<PassObjective> objective_;

  ForwardBackwardReport report_;
  PreparedBatch prepared_;
  PassTargets targets_;  // Empty in imitation.
  LearnerStatistics draft_;
  policy::Evaluation now_;        // Holds the graph.
  policy::RecurrentState state_;  // After the last step, detached.
  at::Tensor log_probs_;          // float32 [B, T, K], detached.
  LossInputs inputs_;
  RatioStatistics ratios_;
  std::vector<LossTerm> terms_;

  // To undo.
  bool committed_ = false;
  bool took_gradients_ = false;
  std::vector<at::Tensor> earlier_;
  NamedTensors weights_before_;
  bool moved_before_ = false;
};

ForwardBackwardReport LearnerCore::ForwardBackward(
    absl::Span<const Trajectory> trajectories, const PassOptions& options) {
  const c10::AutoGradMode grad_mode(true);
  return PassRunner(*this, trajectories, options).Run();
}

}  // namespace esper::ppo
