#include "server/learner_thread.h"

#include <utility>

#include "server/grpc_status.h"

namespace esper::server {

LearnerThread::LearnerThread(std::unique_ptr<ppo::Learner> learner,
                             PolicyStore& policies, PolicyVersions& versions,
                             NumberLog& tokens, const Options& options,
                             Clock clock)
    : policies_(policies),
      versions_(versions),
      lease_(options.lease, std::move(clock), &tokens),
      learner_(std::move(learner)),
      executor_(options.max_queued) {
  Run([](ppo::Learner&) { return absl::OkStatus(); },
      [](const absl::Status&) {});
}

absl::Status LearnerThread::Execute(const Work& work) {
  absl::Status result = CatchErrors([&] { return work(*learner_); });
  absl::MutexLock lock(&mu_);
  status_.policy_version = learner_->policy_version();
  status_.optimizer_steps = learner_->optimizer_steps();
  status_.transitions_trained = learner_->transitions_trained();
  status_.unpublished_steps = learner_->unpublished_steps();
  return result;
}

void LearnerThread::Run(Work work, Done done) {
  absl::Status submitted = executor_.Submit(
      [this, work = std::move(work), done] { done(Execute(work)); });
  if (!submitted.ok()) done(submitted);
}

absl::Status LearnerThread::WriteNow(ppo::Learner& learner,
                                     const v1::LearnerWrite& write,
                                     google::protobuf::MessageLite* response,
                                     const Work& work) {
  const std::string call = response->GetTypeName();
  auto begun = lease_.Begin(write.lease_token(), write.sequence(), call);
  if (!begun.ok()) return begun.status();
  if (begun->has_value()) {
    return response->ParseFromString(**begun)
               ? absl::OkStatus()
               : absl::InternalError("the stored answer does not parse");
  }
  absl::Status status = work(learner);
  if (status.ok()) {
    lease_.Finish(write.lease_token(), write.sequence(), call,
                  response->SerializeAsString());
  }
  return status;
}

void LearnerThread::Write(const v1::LearnerWrite& write,
                          google::protobuf::MessageLite* response, Work work,
                          Done done) {
  Run(
      [this, write, response, work = std::move(work)](ppo::Learner& learner) {
        return WriteNow(learner, write, response, work);
      },
      std::move(done));
}

void LearnerThread::RunCleanup(std::function<void()> work) {
  executor_.SubmitCleanup(std::move(work));
}

absl::Status LearnerThread::Publish(ppo::Learner& learner) {
  return versions_.Publish(learner);
}

void LearnerThread::NotePass(const ppo::ForwardBackwardReport& report) {
  absl::MutexLock lock(&mu_);
  if (report.ratio_check_max) status_.ratio_check_max = *report.ratio_check_max;
  if (report.ratio_alarm) ++status_.ratio_alarms;
  const auto lag = report.metrics.find("version_lag");
  if (lag != report.metrics.end()) status_.version_lag = lag->second;
}

LearnerStatus LearnerThread::Status() const {
  absl::MutexLock lock(&mu_);
  return status_;
}

}  // namespace esper::server
