#include "client/training_client.h"

#include <utility>

#include "client/status.h"

namespace esper::client {
namespace {

// Whether the server has decided that the write does not happen. Otherwise the
// connection failed, and it may or may not have happened.
bool IsRefusal(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kInternal:
      return ErrorDetailOf(status).has_value();
    case absl::StatusCode::kAborted:
      return false;  // STALE_LEASE.
    default:
      return true;
  }
}

absl::Status NoLease() {
  return absl::FailedPreconditionError(
      "There is no learner lease; call AcquireLearner first.");
}

}  // namespace

absl::StatusOr<std::unique_ptr<TrainingClient>> TrainingClient::Connect(
    const ConnectOptions& connect, const RetryPolicy& retry) {
  auto channel = client::Connect(connect);
  if (!channel.ok()) return channel.status();
  return std::make_unique<TrainingClient>(*std::move(channel), retry);
}

TrainingClient::TrainingClient(std::shared_ptr<grpc::Channel> channel,
                               const RetryPolicy& retry)
    : retry_(retry), stub_(v1::PolicyTraining::NewStub(std::move(channel))) {}

absl::StatusOr<v1::AcquireLearnerResponse> TrainingClient::AcquireLearner(
    const std::string& holder) {
  absl::MutexLock write_lock(&write_mu_);
  v1::AcquireLearnerRequest request;
  request.set_holder(holder);
  auto response = CallUnary(retry_, "AcquireLearner", *stub_,
                            &Stub::AcquireLearner, request);
  absl::MutexLock lock(&mu_);
  token_ = response.ok() ? response->lease_token() : 0;
  last_sequence_ = 0;
  return response;
}

absl::Status TrainingClient::RenewLearner() {
  v1::RenewLearnerRequest request;
  {
    absl::MutexLock lock(&mu_);
    if (token_ == 0) return NoLease();
    request.set_lease_token(token_);
  }
  return CallUnary(retry_, "RenewLearner", *stub_, &Stub::RenewLearner, request)
      .status();
}

absl::Status TrainingClient::ReleaseLearner() {
  absl::MutexLock write_lock(&write_mu_);
  v1::ReleaseLearnerRequest request;
  {
    absl::MutexLock lock(&mu_);
    if (token_ == 0) return absl::OkStatus();
    request.set_lease_token(std::exchange(token_, 0));
  }
  return CallUnary(retry_, "ReleaseLearner", *stub_, &Stub::ReleaseLearner,
                   request)
      .status();
}

template <typename Request, typename Response>
absl::StatusOr<Response> TrainingClient::Write(
    const std::string& method,
    grpc::Status (Stub::*call)(grpc::ClientContext*, const Request&, Response*),
    Request& request) {
  auto write = NextWrite();
  if (!write.ok()) return write.status();
  *request.mutable_write() = *write;
  auto response = CallUnary(retry_, method, *stub_, call, request);
  NoteOutcome(*write, response.status());
  return response;
}

absl::StatusOr<v1::LearnerWrite> TrainingClient::NextWrite() const {
  absl::MutexLock lock(&mu_);
  if (token_ == 0) return NoLease();
  v1::LearnerWrite write;
  write.set_lease_token(token_);
  write.set_sequence(last_sequence_ + 1);
  return write;
}

void TrainingClient::NoteOutcome(const v1::LearnerWrite& write,
                                 const absl::Status& status) {
  absl::MutexLock lock(&mu_);
  if (status.ok()) {
    last_sequence_ = write.sequence();
  } else if (!IsRefusal(status)) {
    token_ = 0;
  }
}

absl::StatusOr<v1::ForwardBackwardResponse> TrainingClient::ForwardBackward(
    v1::ForwardBackwardRequest& request) {
  if (request.totals_only() && !request.first_pass()) {
    return CallUnary(retry_, "ForwardBackward", *stub_, &Stub::ForwardBackward,
                     request);
  }
  absl::MutexLock lock(&write_mu_);
  return Write("ForwardBackward", &Stub::ForwardBackward, request);
}

absl::StatusOr<v1::OptimStepResponse> TrainingClient::OptimStep(
    v1::OptimStepRequest request) {
  absl::MutexLock lock(&write_mu_);
  return Write("OptimStep", &Stub::OptimStep, request);
}

absl::StatusOr<v1::UpdateResult> TrainingClient::UpdatePolicy(
    v1::UpdatePolicyRequest& request,
    const std::function<void(const v1::UpdateProgress&)>& progress,
    absl::Duration attempt_timeout) {
  absl::MutexLock lock(&write_mu_);
  auto write = NextWrite();
  if (!write.ok()) return write.status();
  *request.mutable_write() = *write;
  RetryPolicy retry = retry_;
  retry.attempt_timeout = attempt_timeout;
  v1::UpdateResult result;
  absl::Status status =
      RetryCall(retry, "UpdatePolicy", [&](grpc::ClientContext* context, int) {
        auto reader = stub_->UpdatePolicy(context, request);
        v1::UpdatePolicyResponse response;
        while (reader->Read(&response)) {
          if (response.has_result()) {
            result = response.result();
          } else if (progress) {
            progress(response.progress());
          }
        }
        return reader->Finish();
      });
  NoteOutcome(*write, status);
  if (!status.ok()) return status;
  return result;
}

absl::StatusOr<v1::ListRecordingsResponse> TrainingClient::ListRecordings(
    const v1::ListRecordingsRequest& request) {
  return CallUnary(retry_, "ListRecordings", *stub_, &Stub::ListRecordings,
                   request);
}

absl::StatusOr<v1::Recording> TrainingClient::GetRecording(
    const std::string& episode_id) {
  v1::GetRecordingRequest request;
  request.set_episode_id(episode_id);
  auto response =
      CallUnary(retry_, "GetRecording", *stub_, &Stub::GetRecording, request);
  if (!response.ok()) return response.status();
  return std::move(*response->mutable_recording());
}

absl::StatusOr<int64_t> TrainingClient::DiscardRecordings(
    v1::DiscardRecordingsRequest request) {
  absl::MutexLock lock(&write_mu_);
  auto response = Write("DiscardRecordings", &Stub::DiscardRecordings, request);
  if (!response.ok()) return response.status();
  return response->discarded();
}

bool TrainingClient::has_lease() const {
  absl::MutexLock lock(&mu_);
  return token_ != 0;
}

void TrainingClient::DropLease() {
  absl::MutexLock lock(&mu_);
  token_ = 0;
}

}  // namespace esper::client
