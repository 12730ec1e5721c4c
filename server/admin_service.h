#ifndef ESPER_SERVER_ADMIN_SERVICE_H_
#define ESPER_SERVER_ADMIN_SERVICE_H_

#include <string>

#include "absl/status/statusor.h"
#include "core/policy/policy_spec.h"
#include "esper/v1/policy_admin.grpc.pb.h"
#include "server/checkpoint_store.h"
#include "server/clock.h"
#include "server/learner_thread.h"
#include "server/server_counters.h"
#include "server/serving_status.h"

namespace esper::server {

// esper.v1.PolicyAdmin. Checkpoints are made and restored on the learner's
// thread, so they lie between two pieces of training work.
//
// Thread safety: as gRPC needs it.
class AdminService final : public v1::PolicyAdmin::CallbackService {
 public:
  using Gauges = ServingStatus::Gauges;

  // All references must outlive this.
  AdminService(LearnerThread& learner, CheckpointStore& checkpoints,
               ServerCounters& counters, Gauges gauges, std::string device,
               Clock clock);

  grpc::ServerUnaryReactor* SaveCheckpoint(
      grpc::CallbackServerContext* context,
      const v1::SaveCheckpointRequest* request,
      v1::SaveCheckpointResponse* response) override;
  grpc::ServerUnaryReactor* RestoreCheckpoint(
      grpc::CallbackServerContext* context,
      const v1::RestoreCheckpointRequest* request,
      v1::RestoreCheckpointResponse* response) override;
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context,
                                      const v1::GetStatusRequest* request,
                                      v1::GetStatusResponse* response) override;
  grpc::ServerUnaryReactor* ListCheckpoints(
      grpc::CallbackServerContext* context,
      const v1::ListCheckpointsRequest* request,
      v1::ListCheckpointsResponse* response) override;
  grpc::ServerUnaryReactor* VerifyCheckpoint(
      grpc::CallbackServerContext* context,
      const v1::VerifyCheckpointRequest* request,
      v1::VerifyCheckpointResponse* response) override;
  grpc::ServerUnaryReactor* ListVersions(
      grpc::CallbackServerContext* context,
      const v1::ListVersionsRequest* request,
      v1::ListVersionsResponse* response) override;
  grpc::ServerUnaryReactor* SetLabel(grpc::CallbackServerContext* context,
                                     const v1::SetLabelRequest* request,
                                     v1::SetLabelResponse* response) override;
  grpc::ServerUnaryReactor* Rollback(grpc::CallbackServerContext* context,
                                     const v1::RollbackRequest* request,
                                     v1::RollbackResponse* response) override;
  grpc::ServerWriteReactor<v1::ExportPolicyResponse>* ExportPolicy(
      grpc::CallbackServerContext* context,
      const v1::ExportPolicyRequest* request) override;
  grpc::ServerReadReactor<v1::ImportPolicyRequest>* ImportPolicy(
      grpc::CallbackServerContext* context,
      v1::ImportPolicyResponse* response) override;

 private:
  absl::Status DoSetLabel(const v1::SetLabelRequest& request,
                          const policy::PolicySpec& spec,
                          v1::SetLabelResponse* response);
  absl::Status DoImport(ppo::Learner& learner, const std::string& name,
                        const std::string& bytes,
                        v1::ImportPolicyResponse* response);
  // Writes a checkpoint under the lease's token.
  absl::StatusOr<CheckpointInfo> Save(absl::StatusOr<Checkpoint> checkpoint);
  grpc::ServerUnaryReactor* AnswerAfter(grpc::CallbackServerContext* context,
                                        LearnerThread::Work work);

  LearnerThread& learner_;
  CheckpointStore& checkpoints_;
  ServerCounters& counters_;
  const ServingStatus status_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_ADMIN_SERVICE_H_
