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
  int64_t sequence = 0;
  {
    absl::MutexLock lock(&mu_);
    if (token_ == 0) return NoLease();
    sequence = last_sequence_ + 1;
    request.mutable_write()->set_lease_token(token_);
    request.mutable_write()->set_sequence(sequence);
  }
  auto response = CallUnary(retry_, method, *stub_, call, request);
  absl::MutexLock lock(&mu_);
  if (response.ok()) {
    last_sequence_ = sequence;
  } else if (!IsRefusal(response.status())) {
    token_ = 0;
  }
  return response;
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

bool TrainingClient::has_lease() const {
  absl::MutexLock lock(&mu_);
  return token_ != 0;
}

void TrainingClient::DropLease() {
  absl::MutexLock lock(&mu_);
  token_ = 0;
}

}  // namespace esper::client
