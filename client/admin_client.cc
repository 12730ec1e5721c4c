#include "client/admin_client.h"

#include <algorithm>
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

absl::StatusOr<v1::ListCheckpointsResponse> AdminClient::ListCheckpoints() {
  return CallUnary(retry_, "ListCheckpoints", *stub_, &Stub::ListCheckpoints,
                   v1::ListCheckpointsRequest());
}

absl::StatusOr<v1::VerifyCheckpointResponse> AdminClient::VerifyCheckpoint(
    const std::string& name) {
  v1::VerifyCheckpointRequest request;
  request.set_name(name);
  return CallUnary(retry_, "VerifyCheckpoint", *stub_, &Stub::VerifyCheckpoint,
                   request);
}

absl::StatusOr<v1::ListVersionsResponse> AdminClient::ListVersions() {
  return CallUnary(retry_, "ListVersions", *stub_, &Stub::ListVersions,
                   v1::ListVersionsRequest());
}

absl::StatusOr<v1::SetLabelResponse> AdminClient::SetLabel(
    const v1::SetLabelRequest& request) {
  return CallUnary(retry_, "SetLabel", *stub_, &Stub::SetLabel, request);
}

absl::StatusOr<v1::RollbackResponse> AdminClient::Rollback(
    const v1::RollbackRequest& request) {
  RetryPolicy once = retry_;
  once.give_up_after = absl::ZeroDuration();
  return CallUnary(once, "Rollback", *stub_, &Stub::Rollback, request);
}

absl::StatusOr<std::string> AdminClient::ExportPolicy(const std::string& name) {
  v1::ExportPolicyRequest request;
  request.set_name(name);
  std::string bytes;
  absl::Status status =
      RetryCall(retry_, "ExportPolicy",
                [&](grpc::ClientContext* context, int /*attempt*/) {
                  bytes.clear();
                  auto reader = stub_->ExportPolicy(context, request);
                  v1::ExportPolicyResponse response;
                  while (reader->Read(&response)) bytes += response.chunk();
                  return reader->Finish();
                });
  if (!status.ok()) return status;
  return bytes;
}

absl::StatusOr<v1::ImportPolicyResponse> AdminClient::ImportPolicy(
    const std::string& name, const std::string& bytes) {
  constexpr size_t kChunkBytes = 1 << 20;
  v1::ImportPolicyResponse response;
  absl::Status status = RetryCall(
      retry_, "ImportPolicy",
      [&](grpc::ClientContext* context, int /*attempt*/) {
        response.Clear();
        auto writer = stub_->ImportPolicy(context, &response);
        v1::ImportPolicyRequest request;
        request.set_name(name);
        size_t sent = 0;
        do {
          const size_t size = std::min(kChunkBytes, bytes.size() - sent);
          request.set_chunk(bytes.data() + sent, size);
          sent += size;
          if (!writer->Write(request)) break;  // `Finish` says why.
          request.clear_name();
        } while (sent < bytes.size());
        writer->WritesDone();
        return writer->Finish();
      });
  if (!status.ok()) return status;
  return response;
}

}  // namespace esper::client
