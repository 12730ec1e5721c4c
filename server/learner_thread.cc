#include "server/learner_thread.h"

#include <optional>
#include <utility>

#include "server/grpc_status.h"

namespace esper::server {

LearnerThread::LearnerThread(std::unique_ptr<ppo::Learner> learner,
                             PolicyStore& policies, ServerCounters& counters,
                             const Options& options, Clock clock)
    : policies_(policies),
      counters_(counters),
      lease_(options.lease, std::move(clock)),
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
  return result;
}

void LearnerThread::Run(Work work, Done done) {
  absl::Status submitted = executor_.Submit(
      [this, work = std::move(work), done] { done(Execute(work)); });
  if (!submitted.ok()) done(submitted);
}

void LearnerThread::Write(const v1::LearnerWrite& write,
                          google::protobuf::MessageLite* response, Work work,
                          Done done) {
  const int64_t token = write.lease_token();
  const int64_t sequence = write.sequence();
  Run(
      [this, token, sequence, response,
       work = std::move(work)](ppo::Learner& learner) -> absl::Status {
        auto begun = lease_.Begin(token, sequence);
        if (!begun.ok()) return begun.status();
        if (begun->has_value()) {
          response->ParseFromString(**begun);
          return absl::OkStatus();
        }
        absl::Status status = work(learner);
        if (status.ok()) {
          lease_.Finish(token, sequence, response->SerializeAsString());
        }
        return status;
      },
      std::move(done));
}

void LearnerThread::RunCleanup(std::function<void()> work) {
  executor_.SubmitCleanup(std::move(work));
}

absl::Status LearnerThread::PublishCurrent(ppo::Learner& learner) {
  absl::Status status = policies_.Publish(*learner.published());
  if (status.ok()) ++counters_.publishes;
  return status;
}

void LearnerThread::NoteRatioCheck(double max) {
  absl::MutexLock lock(&mu_);
  status_.ratio_check_max = max;
}

LearnerStatus LearnerThread::Status() const {
  absl::MutexLock lock(&mu_);
  return status_;
}

}  // namespace esper::server
