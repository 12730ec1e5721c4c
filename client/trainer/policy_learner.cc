#include "client/trainer/policy_learner.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/status.h"
#include "proto/config/json_message.h"
#include "spdlog/spdlog.h"

namespace esper::client {
namespace {

// Names the first setting that is not as expected.
absl::Status CheckSettings(const v1::LearnerConfig& expected,
                           const v1::LearnerConfig& actual) {
  const config::Json server = config::ToJson(actual);
  const config::Json ours = config::ToJson(expected);
  for (const auto& [name, value] : ours.items()) {
    if (!server.contains(name) || server[name] == value) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        "learner.", name, " is ", value.dump(),
        " in this configuration, and the server runs with ",
        server[name].dump(),
        ". Start esper_server and esper_trainer with the same --config, "
        "--profile and --set."));
  }
  return absl::OkStatus();
}

}  // namespace

PolicyLearner::PolicyLearner(std::unique_ptr<PolicyClient> policy,
                             std::unique_ptr<TrainingClient> training,
                             std::unique_ptr<AdminClient> admin,
                             std::string holder, v1::LearnerConfig expected)
    : policy_(std::move(policy)),
      training_(std::move(training)),
      admin_(std::move(admin)),
      holder_(std::move(holder)),
      expected_(std::move(expected)) {}

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
  return CheckSettings(expected_, lease->learner());
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
  PolicyUpdate update(*training_, options, version_);
  unfinished_update_of_ = version_;
  const absl::Status status = update.Run(episodes);
  if (!status.ok()) {
    if (!update.began()) unfinished_update_of_ = 0;
    return status;
  }
  UpdateReport report = update.report();
  if (update.unpublished_steps()) {
    absl::Status published = Publish(report);
    if (!published.ok()) return published;
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
