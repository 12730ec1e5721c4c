#ifndef ESPER_TESTS_CLIENT_TESTING_FAKE_POLICY_SERVER_H_
#define ESPER_TESTS_CLIENT_TESTING_FAKE_POLICY_SERVER_H_

#include <grpcpp/channel.h>
#include <grpcpp/server.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "client/call.h"
#include "client/status.h"
#include "esper/v1/policy_admin.grpc.pb.h"
#include "esper/v1/policy_inference.grpc.pb.h"
#include "esper/v1/policy_training.grpc.pb.h"

namespace esper::client::testing {

// What the next calls meet instead of an answer.
struct Fault {
  absl::Status status;
  // The call is carried out, and its reply is lost.
  bool after_effect = false;
};

// The refusal of one row of a call; `step`: what was expected, if >= 0.
absl::Status RowRefusal(const std::string& reason, int64_t row,
                        int64_t step = -1);

// Faults by method name, in order.
class Faults {
 public:
  void Push(const std::string& method, Fault fault);
  std::optional<Fault> Pop(const std::string& method);

 private:
  absl::Mutex mu_;
  std::map<std::string, std::deque<Fault>> faults_ ABSL_GUARDED_BY(mu_);
};

// A policy that always takes action 0 (WAIT) of each of eight heads, with steps
// that are exactly-once, for slots r0c0, r0c1, r0c2. Its version is `version`.
class FakeInference final : public v1::PolicyInference::Service {
 public:
  explicit FakeInference(Faults& faults) : faults_(faults) {}

  grpc::Status GetPolicy(grpc::ServerContext*, const v1::GetPolicyRequest*,
                         v1::GetPolicyResponse*) override;
  grpc::Status OpenEpisodes(grpc::ServerContext*,
                            const v1::OpenEpisodesRequest*,
                            v1::OpenEpisodesResponse*) override;
  grpc::Status GetAction(grpc::ServerContext*, const v1::GetActionRequest*,
                         v1::GetActionResponse*) override;
  grpc::Status CloseEpisodes(grpc::ServerContext*,
                             const v1::CloseEpisodesRequest*,
                             v1::CloseEpisodesResponse*) override;

  // Forgets all episodes, as a restarted server has.
  void ForgetEpisodes();
  // Copies of the requests so far.
  std::vector<v1::OpenEpisodesRequest> opened();
  std::vector<v1::GetActionRequest> acted();
  std::vector<v1::CloseEpisodesRequest> closed();
  int open_episodes();

  int64_t version = 1;

 private:
  struct Episode {
    std::string key;
    uint64_t incarnation = 0;
    int64_t next_step = 0;
  };

  Faults& faults_;
  absl::Mutex mu_;
  std::map<std::string, Episode> episodes_ ABSL_GUARDED_BY(mu_);
  int64_t next_id_ ABSL_GUARDED_BY(mu_) = 1;
  std::vector<v1::OpenEpisodesRequest> opened_ ABSL_GUARDED_BY(mu_);
  std::vector<v1::GetActionRequest> acted_ ABSL_GUARDED_BY(mu_);
  std::vector<v1::CloseEpisodesRequest> closed_ ABSL_GUARDED_BY(mu_);
};

// A learner that counts. Sequence numbers are as the contract says.
class FakeTraining final : public v1::PolicyTraining::Service {
 public:
  FakeTraining(Faults& faults, FakeInference& inference)
      : faults_(faults), inference_(inference) {}

  grpc::Status AcquireLearner(grpc::ServerContext*,
                              const v1::AcquireLearnerRequest*,
                              v1::AcquireLearnerResponse*) override;
  grpc::Status RenewLearner(grpc::ServerContext*,
                            const v1::RenewLearnerRequest*,
                            v1::RenewLearnerResponse*) override;
  grpc::Status ReleaseLearner(grpc::ServerContext*,
                              const v1::ReleaseLearnerRequest*,
                              v1::ReleaseLearnerResponse*) override;
  grpc::Status ForwardBackward(grpc::ServerContext*,
                               const v1::ForwardBackwardRequest*,
                               v1::ForwardBackwardResponse*) override;
  grpc::Status OptimStep(grpc::ServerContext*, const v1::OptimStepRequest*,
                         v1::OptimStepResponse*) override;

  // Gradient call of an update (from 0) whose divergence is too high; -1: none.
  int kl_stop_at_pass = -1;
  // Gradient call of an update that is not finite, so that all of it is taken
  // back; -1: none.
  int roll_back_at_pass = -1;
  // Reported by AcquireLearner.
  v1::LearnerConfig learner;
  // The gradient and statistics calls so far, without repeats.
  std::vector<v1::ForwardBackwardRequest> requests;
  // Carried out, without repeats.
  int forward_backwards = 0;
  int totals_reads = 0;  // Without a write.
  int steps = 0;
  bool released = false;
  // Sequence numbers as they came, repeats included.
  std::vector<int64_t> sequences;
  int64_t token = 0;

 private:
  // Whether the write is new; a status if it is refused.
  absl::StatusOr<bool> Begin(const v1::LearnerWrite& write,
                             const std::string& method);

  Faults& faults_;
  FakeInference& inference_;
  int64_t last_sequence_ = 0;
  std::string last_method_;
  std::string last_answer_;
  int unpublished_steps_ = 0;
  bool accumulated_ = false;
  int pass_ = 0;
};

class FakeAdmin final : public v1::PolicyAdmin::Service {
 public:
  FakeAdmin(Faults& faults, FakeInference& inference, FakeTraining& training)
      : faults_(faults), inference_(inference), training_(training) {}

  grpc::Status SaveCheckpoint(grpc::ServerContext*,
                              const v1::SaveCheckpointRequest*,
                              v1::SaveCheckpointResponse*) override;
  grpc::Status RestoreCheckpoint(grpc::ServerContext*,
                                 const v1::RestoreCheckpointRequest*,
                                 v1::RestoreCheckpointResponse*) override;
  grpc::Status GetStatus(grpc::ServerContext*, const v1::GetStatusRequest*,
                         v1::GetStatusResponse*) override;
  grpc::Status ListVersions(grpc::ServerContext*,
                            const v1::ListVersionsRequest*,
                            v1::ListVersionsResponse*) override;
  grpc::Status ListCheckpoints(grpc::ServerContext*,
                               const v1::ListCheckpointsRequest*,
                               v1::ListCheckpointsResponse*) override;
  grpc::Status SetLabel(grpc::ServerContext*, const v1::SetLabelRequest*,
                        v1::SetLabelResponse*) override;
  grpc::Status Rollback(grpc::ServerContext*, const v1::RollbackRequest*,
                        v1::RollbackResponse*) override;
  grpc::Status ExportPolicy(
      grpc::ServerContext*, const v1::ExportPolicyRequest*,
      grpc::ServerWriter<v1::ExportPolicyResponse>*) override;
  grpc::Status ImportPolicy(grpc::ServerContext*,
                            grpc::ServerReader<v1::ImportPolicyRequest>*,
                            v1::ImportPolicyResponse*) override;

  std::map<int64_t, std::string> labels;  // Of versions 1 and 2.
  std::string file;                       // What export gives and import got.
  std::map<std::string, int64_t> checkpoints;  // Name to version.

 private:
  Faults& faults_;
  FakeInference& inference_;
  FakeTraining& training_;  // A restore ends its lease.
};

// All three over an in-process channel.
class FakePolicyServer {
 public:
  FakePolicyServer();
  ~FakePolicyServer();

  std::shared_ptr<grpc::Channel> Channel();

  Faults faults;
  FakeInference inference{faults};
  FakeTraining training{faults, inference};
  FakeAdmin admin{faults, inference, training};

 private:
  std::unique_ptr<grpc::Server> server_;
};

// A retry policy that does not make tests wait.
RetryPolicy FastRetry();

}  // namespace esper::client::testing
#endif  // ESPER_TESTS_CLIENT_TESTING_FAKE_POLICY_SERVER_H_
