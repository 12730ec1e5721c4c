#include "server/whole_update.h"

#include <algorithm>
#include <utility>

#include "proto/config/field_rules.h"
#include "proto/config/minibatches.h"
#include "server/grpc_status.h"
#include "server/loss_messages.h"
#include "server/training_messages.h"

namespace esper::server {

absl::StatusOr<UpdatePlan> DecodeUpdatePlan(
    const v1::UpdatePolicyRequest& request) {
  absl::Status valid = config::CheckFields(request, "");
  if (!valid.ok()) return valid;
  auto loss = DecodeLoss(request);
  if (!loss.ok()) return loss.status();
  UpdatePlan plan;
  plan.loss = *std::move(loss);
  if (request.has_max_grad_norm()) {
    plan.step.max_grad_norm = request.max_grad_norm();
  }
  if (request.has_learning_rate()) {
    plan.step.learning_rate = request.learning_rate();
  }
  if (request.has_passes()) plan.passes = request.passes();
  if (request.has_minibatches()) plan.minibatches = request.minibatches();
  plan.seed = request.seed();
  return plan;
}

WholeUpdate::WholeUpdate(LearnerCalls& calls, ppo::Learner& learner,
                         const UpdatePlan& plan, const Hooks& hooks)
    : calls_(calls), learner_(learner), plan_(plan), hooks_(hooks) {}

absl::Status WholeUpdate::Run(const std::vector<ppo::Trajectory>& rows,
                              v1::UpdateResult* result) {
  result_ = result;
  const auto mark = learner_.Mark();
  absl::Status status = CatchErrors([&] { return RunAndPublish(rows); });
  if (!status.ok()) learner_.ReturnTo(*mark);
  return status;
}

absl::Status WholeUpdate::RunAndPublish(
    const std::vector<ppo::Trajectory>& rows) {
  const bool whole = plan_.minibatches <= 1 || rows.size() <= 1;
  absl::Status status = whole ? RunWhole(rows) : RunMinibatches(rows);
  if (!status.ok()) return status;
  if (absl::Status proceed = hooks_.proceed(); !proceed.ok()) return proceed;
  auto published = calls_.PublishSteps(learner_);
  if (!published.ok()) return published.status();
  result_->set_published(*published);
  calls_.FillHeader(result_->mutable_header());
  return absl::OkStatus();
}

absl::Status WholeUpdate::RunWhole(absl::Span<const ppo::Trajectory> rows) {
  ppo::PassOptions options = plan_.loss;
  for (int64_t pass = 0; pass < plan_.passes; ++pass) {
    BeginPass();
    ppo::ScopeOf(options).update_statistics = pass == 0;
    auto goes_on = Advance({pass, 0}, rows, options);
    if (!goes_on.ok()) return goes_on.status();
    if (!*goes_on) break;
  }
  return absl::OkStatus();
}

absl::Status WholeUpdate::RunMinibatches(
    const std::vector<ppo::Trajectory>& rows) {
  const auto version = static_cast<uint64_t>(learner_.policy_version());
  {
    ppo::PassOptions options = plan_.loss;
    ppo::ScopeOf(options).update_statistics = true;
    ppo::ScopeOf(options).totals_only = true;
    v1::UpdateProgress progress;
    progress.set_pass(-1);
    progress.set_minibatch(-1);
    if (absl::Status status = hooks_.proceed(); !status.ok()) return status;
    auto next = Pass(rows, options, &progress);
    if (!next.ok()) return next.status();
    hooks_.progress(std::move(progress));
    if (*next != Next::kStep) return absl::OkStatus();
  }
  ppo::PassOptions options = plan_.loss;
  ppo::ScopeOf(options).minibatch = true;
  ppo::ScopeOf(options).totals = totals_;
  const int count = static_cast<int>(rows.size());
  const int parts =
      static_cast<int>(std::min<int64_t>(plan_.minibatches, count));
  for (int64_t pass = 0; pass < plan_.passes; ++pass) {
    BeginPass();
    const config::PassKey key = {plan_.seed, version,
                                 static_cast<uint64_t>(pass)};
    const auto split = config::SplitRows(count, parts, key);
    for (int part = 0; part < parts; ++part) {
      std::vector<ppo::Trajectory> minibatch;
      for (const int row : split[part]) minibatch.push_back(rows[row]);
      auto goes_on = Advance({pass, part}, minibatch, options);
      if (!goes_on.ok()) return goes_on.status();
      if (!*goes_on) return absl::OkStatus();
    }
  }
  return absl::OkStatus();
}

void WholeUpdate::BeginPass() {
  result_->set_passes(result_->passes() + 1);
  kl_sum_ = 0;
  kl_count_ = 0;
}

absl::StatusOr<bool> WholeUpdate::Advance(
    const Place& place, absl::Span<const ppo::Trajectory> rows,
    const ppo::PassOptions& options) {
  if (absl::Status status = hooks_.proceed(); !status.ok()) return status;
  v1::UpdateProgress progress;
  progress.set_pass(place.pass);
  progress.set_minibatch(place.minibatch);
  auto next = Pass(rows, options, &progress);
  if (!next.ok()) return next.status();
  bool goes_on = *next == Next::kSkip;
  if (*next == Next::kStep) {
    auto stepped = Step(&progress);
    if (!stepped.ok()) return stepped.status();
    goes_on = *stepped;
  }
  hooks_.progress(std::move(progress));
  return goes_on;
}

absl::StatusOr<WholeUpdate::Next> WholeUpdate::Pass(
    absl::Span<const ppo::Trajectory> rows, const ppo::PassOptions& options,
    v1::UpdateProgress* progress) {
  v1::ForwardBackwardResponse& reply = *progress->mutable_forward_backward();
  absl::Status status = calls_.ForwardBackward(learner_, rows, options, &reply);
  if (!status.ok()) return status;
  const ppo::PassScope& scope = ppo::ScopeOf(options);
  if (scope.update_statistics) {
    result_->set_transitions(reply.transitions());
    *result_->mutable_metrics() = reply.metrics();
    if (reply.has_ratio_check_max()) {
      result_->set_ratio_check_max(reply.ratio_check_max());
      result_->set_ratio_check_mean(reply.ratio_check_mean());
    }
  }
  if (scope.totals_only) {
    auto totals = DecodeTotals(
        reply.totals(), static_cast<int64_t>(learner_.spec().heads.size()));
    if (!totals.ok()) return totals.status();
    totals_ = *std::move(totals);
  }
  kl_sum_ += reply.approx_kl();
  result_->set_approx_kl(kl_sum_ / static_cast<double>(++kl_count_));
  AddAnomalies(reply.anomalies());
  if (reply.kl_stop()) {
    result_->set_kl_stopped(true);
    return Next::kEnd;
  }
  if (reply.nonfinite_term().empty()) return Next::kStep;
  NoteNonFinite(reply.nonfinite_term());
  if (!reply.rolled_back()) return Next::kSkip;
  TakeBack();
  return Next::kEnd;
}

absl::StatusOr<bool> WholeUpdate::Step(v1::UpdateProgress* progress) {
  v1::OptimStepResponse& reply = *progress->mutable_optim_step();
  absl::Status status = calls_.OptimStep(learner_, plan_.step, &reply);
  if (!status.ok()) return status;
  calls_.FillHeader(reply.mutable_header());
  AddAnomalies(reply.anomalies());
  result_->set_gradient_norm(reply.gradient_norm_before_clip());
  if (reply.stepped()) {
    result_->set_optimizer_steps(result_->optimizer_steps() + 1);
    result_->set_weights_change_l2(result_->weights_change_l2() +
                                   reply.weights_change_l2());
  } else {
    NoteNonFinite(reply.nonfinite_tensor());
  }
  if (!reply.rolled_back()) return true;
  TakeBack();
  return false;
}

void WholeUpdate::TakeBack() {
  result_->set_rolled_back(true);
  result_->set_optimizer_steps(0);
  result_->set_weights_change_l2(0);
}

void WholeUpdate::NoteNonFinite(const std::string& name) {
  result_->add_nonfinite(name);
}

template <typename Names>
void WholeUpdate::AddAnomalies(const Names& names) {
  auto* known = result_->mutable_anomalies();
  for (const std::string& name : names) {
    if (std::count(known->begin(), known->end(), name) == 0) {
      *known->Add() = name;
    }
  }
}

}  // namespace esper::server
