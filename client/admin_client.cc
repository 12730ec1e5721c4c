#include "client/admin_client.h"

#include <utility>

namespace esper::client {

using Stub = v1::PolicyAdmin::Stub;

absl::StatusOr<std::unique_ptr<AdminClient>> AdminClient::Connect(
    const ConnectOptions& connect, const RetryPolicy& retry) {
  auto channel = client::Connect(connect);
  if (!channel.ok()) return channel.status();
  return std::make_unique<AdminClient>(*std::move(channel), retry);
}

AdminClient::AdminClient(std::shared_ptr<grpc::Channel> channel,
                         const RetryPolicy& retry)
    : retry_(retry), stub_(v1::PolicyAdmin::NewStub(std::move(channel))) {}

absl::StatusOr<v1::GetStatusResponse> AdminClient::GetStatus() {
  return CallUnary(retry_, "GetStatus", *stub_, &Stub::GetStatus,
                   v1::GetStatusRequest());
}

absl::StatusOr<v1::SaveCheckpointResponse> AdminClient::SaveCheckpoint(
    const std::string& name) {
  v1::SaveCheckpointRequest request;
  request.set_name(name);
  return CallUnary(retry_, "SaveCheckpoint", *stub_, &Stub::SaveCheckpoint,
                   request);
}

absl::StatusOr<v1::RestoreCheckpointResponse> AdminClient::RestoreCheckpoint(
    const std::string& name) {
  v1::RestoreCheckpointRequest request;
  request.set_name(name);
  return CallUnary(retry_, "RestoreCheckpoint", *stub_,
                   &Stub::RestoreCheckpoint, request);
}

}  // namespace esper::client
