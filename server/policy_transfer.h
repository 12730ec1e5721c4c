#ifndef ESPER_SERVER_POLICY_TRANSFER_H_
#define ESPER_SERVER_POLICY_TRANSFER_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "esper/v1/policy_admin.grpc.pb.h"
#include "server/learner_thread.h"
#include "server/server_counters.h"

// Policy files over gRPC, in chunks: the streams of PolicyAdmin.
namespace esper::server {

// Sends a file. Deletes itself when the call is over.
class ExportStream final
    : public grpc::ServerWriteReactor<v1::ExportPolicyResponse> {
 public:
  // Fills in the bytes to send; runs on the learner's thread.
  using Fill = std::function<absl::Status(ppo::Learner&, std::string* bytes)>;

  // The references must outlive the call.
  ExportStream(LearnerThread& learner, ServerCounters& counters,
               grpc::CallbackServerContext* context, Fill fill);

  void OnWriteDone(bool ok) override;
  void OnCancel() override {}  // The next write fails.
  void OnDone() override { delete this; }

 private:
  void WriteNext();

  ServerCounters& counters_;
  grpc::CallbackServerContext* const context_;
  std::string bytes_;
  size_t sent_ = 0;
  v1::ExportPolicyResponse chunk_;
};

// Receives a file. Deletes itself when the call is over.
class ImportStream final
    : public grpc::ServerReadReactor<v1::ImportPolicyRequest> {
 public:
  // Takes the file, once it is whole; runs on the learner's thread.
  using Take = std::function<absl::Status(
      ppo::Learner&, const std::string& name, const std::string& bytes)>;

  // `max_bytes` of a file; more are BUDGET_EXCEEDED.
  ImportStream(LearnerThread& learner, ServerCounters& counters,
               grpc::CallbackServerContext* context, int64_t max_bytes,
               Take take);

  void OnReadDone(bool ok) override;
  void OnCancel() override {}  // The next read fails.
  void OnDone() override { delete this; }

 private:
  void FinishWith(const absl::Status& status);

  LearnerThread& learner_;
  ServerCounters& counters_;
  grpc::CallbackServerContext* const context_;
  const int64_t max_bytes_;
  const Take take_;
  v1::ImportPolicyRequest request_;
  bool first_ = true;
  std::string name_;
  std::string bytes_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_POLICY_TRANSFER_H_
