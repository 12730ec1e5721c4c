#ifndef ESPER_CLIENT_ADMIN_CLIENT_H_
#define ESPER_CLIENT_ADMIN_CLIENT_H_

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "client/call.h"
#include "esper/v1/policy_admin.grpc.pb.h"

namespace esper::client {

// Operates a policy server. Saving or restoring twice does no harm, so these
// calls too are retried; `Rollback` is not.
//
// Thread safety: any thread may call any method.
class AdminClient {
 public:
  static absl::StatusOr<std::unique_ptr<AdminClient>> Connect(
      const ConnectOptions& connect, const RetryPolicy& retry = {});
  explicit AdminClient(std::shared_ptr<grpc::Channel> channel,
                       const RetryPolicy& retry = {});

  absl::StatusOr<v1::GetStatusResponse> GetStatus();
  // Empty name: the server makes one.
  absl::StatusOr<v1::SaveCheckpointResponse> SaveCheckpoint(
      const std::string& name);
  // Empty name: the newest.
  absl::StatusOr<v1::RestoreCheckpointResponse> RestoreCheckpoint(
      const std::string& name);
  absl::StatusOr<v1::ListCheckpointsResponse> ListCheckpoints();
  // Empty name: the newest.
  absl::StatusOr<v1::VerifyCheckpointResponse> VerifyCheckpoint(
      const std::string& name);

  absl::StatusOr<v1::ListVersionsResponse> ListVersions();
  absl::StatusOr<v1::SetLabelResponse> SetLabel(
      const v1::SetLabelRequest& request);
  // Tried once: a repetition would make one more version of the same weights,
  // and "previous" would be another one.
  absl::StatusOr<v1::RollbackResponse> Rollback(
      const v1::RollbackRequest& request);

  // The whole safetensors file of a checkpoint; empty name: of the version
  // that acts.
  absl::StatusOr<std::string> ExportPolicy(const std::string& name);
  // Makes a checkpoint of a safetensors file; empty name: the server makes one.
  absl::StatusOr<v1::ImportPolicyResponse> ImportPolicy(
      const std::string& name, const std::string& bytes);

 private:
  const RetryPolicy retry_;
  const std::unique_ptr<v1::PolicyAdmin::Stub> stub_;
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_ADMIN_CLIENT_H_
