#include "client/trainer/policy_learner.h"

#include <algorithm>
#include <utility>

#include "client/status.h"
#include "spdlog/spdlog.h"

namespace esper::client {
namespace {

// Whether the server itself turned the call down, before doing anything.
bool IsRefusal(const absl::Status& status) {
  return ErrorDetailOf(status).has_value() &&
         status.code() != absl::StatusCode::kInternal;
}

}  // namespace

PolicyLearner::PolicyLearner(std::unique_ptr<PolicyClient> policy,
                             std::unique_ptr<TrainingClient> training,
                             std::unique_ptr<AdminClient> admin,
                             std::string holder)
    : policy_(std::move(policy)),
      training_(std::move(training)),
      admin_(std::move(admin)),
      holder_(std::move(holder)) {}

absl::StatusOr<int64_t> PolicyLearner::Prepare(absl::Time now) {
  auto info = policy_->GetPolicy();
  if (!info.ok()) return info.status();
  int64_t version = info->header().policy_version();
  // Before a restore too: it must not take the policy from another learner.
  absl::Status leased = TakeLease(now);
  if (!leased.ok()) return leased;
  if (!checkpoint_.name.empty() && version < checkpoint_.version) {
    spdlog::warn("the server is at version {}: restoring checkpoint {}",
                 version, checkpoint_.name);
    auto restored = admin_->RestoreCheckpoint(checkpoint_.name);
    if (!restored.ok()) return restored.status();
    version = restored->header().policy_version();
    unfinished_update_of_ = 0;
    training_->DropLease();
    leased = TakeLease(now);
    if (!leased.ok()) return leased;
  }
  if (unfinished_update_of_ == version) {
    UpdateReport report;
    absl::Status status = Publish(report);
    if (!status.ok()) return status;
    version = report.policy_version;
  }
  unfinished_update_of_ = 0;
  version_ = version;
  return version;
}

absl::Status PolicyLearner::TakeLease(absl::Time now) {
  if (training_->has_lease()) return absl::OkStatus();
  auto lease = training_->AcquireLearner(holder_);
  if (!lease.ok()) return lease.status();
  lease_ = absl::Seconds(lease->lease().seconds()) +
           absl::Nanoseconds(lease->lease().nanos());
  renewed_ = now;
  return absl::OkStatus();
}

bool PolicyLearner::KeepLease(absl::Time now) {
  if (!training_->has_lease()) return false;
  return now - renewed_ < lease_ / 3 || RenewLease(now);
}

bool PolicyLearner::RenewLease(absl::Time now) {
  if (!training_->has_lease()) return false;
  absl::Status status = training_->RenewLearner();
  if (!status.ok()) {
    spdlog::warn("the learner lease was not renewed: {}", Describe(status));
    if (status.code() == absl::StatusCode::kAborted) training_->DropLease();
    return false;
  }
  renewed_ = now;
  return true;
}

absl::StatusOr<UpdateReport> PolicyLearner::Update(
    const std::vector<FinishedEpisode>& episodes,
    const UpdateOptions& options) {
  v1::ForwardBackwardRequest request;
  for (const FinishedEpisode& episode : episodes) {
    *request.mutable_batch()->add_trajectories() = episode.trajectory;
  }
  *request.mutable_ppo() = options.loss;
  UpdateReport report;
  bool unpublished_steps = false;
  unfinished_update_of_ = version_;
  for (int pass = 0; pass < options.passes; ++pass) {
    request.set_first_pass(pass == 0);
    auto gradient = training_->ForwardBackward(request);
    if (!gradient.ok()) {
      // A refused first pass has done nothing.
      if (pass == 0 && IsRefusal(gradient.status())) unfinished_update_of_ = 0;
      return gradient.status();
    }
    ++report.passes;
    report.approx_kl = gradient->approx_kl();
    if (pass == 0) {
      report.transitions = gradient->transitions();
      report.metrics = {gradient->metrics().begin(), gradient->metrics().end()};
      if (gradient->has_ratio_check_max()) {
        report.ratio_check_max = gradient->ratio_check_max();
        report.ratio_check_mean = gradient->ratio_check_mean();
      }
    }
    if (gradient->kl_stop()) {
      report.kl_stopped = true;
      break;
    }
    if (!gradient->nonfinite_term().empty()) {
      spdlog::warn("pass {} was skipped: {} is not finite", pass + 1,
                   gradient->nonfinite_term());
      ++report.skipped_nonfinite;
      continue;
    }
    v1::OptimStepRequest step;
    step.set_publish(pass + 1 == options.passes);
    if (options.max_grad_norm) step.set_max_grad_norm(*options.max_grad_norm);
    if (options.learning_rate) step.set_learning_rate(*options.learning_rate);
    auto stepped = training_->OptimStep(std::move(step));
    if (!stepped.ok()) return stepped.status();
    report.gradient_norm = stepped->gradient_norm_before_clip();
    report.policy_version = stepped->header().policy_version();
    report.published = stepped->published();
    if (stepped->stepped()) {
      ++report.optimizer_steps;
      report.weights_change_l2 += stepped->weights_change_l2();
      unpublished_steps = true;
    } else {
      ++report.skipped_nonfinite;
    }
  }
  if (unpublished_steps && !report.published) {
    absl::Status status = Publish(report);
    if (!status.ok()) return status;
  }
  unfinished_update_of_ = 0;
  if (report.published) version_ = report.policy_version;
  return report;
}

// Publishes the steps of an update that the divergence, or a pass without a
// gradient, ended before its last step: nothing is accumulated then.
absl::Status PolicyLearner::Publish(UpdateReport& report) {
  v1::OptimStepRequest request;
  request.set_publish(true);
  auto published = training_->OptimStep(std::move(request));
  if (!published.ok()) return published.status();
  report.published = published->published();
  report.policy_version = published->header().policy_version();
  return absl::OkStatus();
}

absl::StatusOr<PolicyLearner::Checkpoint> PolicyLearner::SaveCheckpoint() {
  auto saved = admin_->SaveCheckpoint("");
  if (!saved.ok()) return saved.status();
  checkpoint_ = {saved->name(), saved->header().policy_version()};
  return checkpoint_;
}

absl::Status PolicyLearner::Release() { return training_->ReleaseLearner(); }

}  // namespace esper::client
