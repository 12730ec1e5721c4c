#ifndef ESPER_CLIENT_TRAINING_CLIENT_H_
#define ESPER_CLIENT_TRAINING_CLIENT_H_

#include <grpcpp/channel.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/call.h"
#include "esper/v1/policy_training.grpc.pb.h"

namespace esper::client {

// Writes to the policy as its one learner. Keeps the lease's token and numbers
// the writing calls, so that a call whose reply was lost is repeated under the
// same number and happens once.
//
// A write that failed for good without a clear refusal (its outcome is
// unknown), or with STALE_LEASE, leaves the client without a lease: the next
// write fails with FAILED_PRECONDITION until `AcquireLearner` is called again.
//
// Thread safety: any thread may call any method. Writes are made one at a
// time; `RenewLearner` does not wait for them.
class TrainingClient {
 public:
  static absl::StatusOr<std::unique_ptr<TrainingClient>> Connect(
      const ConnectOptions& connect, const RetryPolicy& retry = {});
  explicit TrainingClient(std::shared_ptr<grpc::Channel> channel,
                          const RetryPolicy& retry = {});

  // Takes the lease, again if `holder` has it. ABORTED with STALE_LEASE while
  // another holder's lease is alive.
  absl::StatusOr<v1::AcquireLearnerResponse> AcquireLearner(
      const std::string& holder) ABSL_LOCKS_EXCLUDED(write_mu_, mu_);

  // FAILED_PRECONDITION without a lease.
  absl::Status RenewLearner() ABSL_LOCKS_EXCLUDED(mu_);
  // Does nothing without a lease.
  absl::Status ReleaseLearner() ABSL_LOCKS_EXCLUDED(write_mu_, mu_);

  // Fills in `write`, unless the request asks for totals only and is not the
  // first pass, which feeds the statistics.
  absl::StatusOr<v1::ForwardBackwardResponse> ForwardBackward(
      v1::ForwardBackwardRequest& request) ABSL_LOCKS_EXCLUDED(write_mu_, mu_);
  absl::StatusOr<v1::OptimStepResponse> OptimStep(v1::OptimStepRequest request)
      ABSL_LOCKS_EXCLUDED(write_mu_, mu_);

  // A whole update; fills in `write`. `progress`, if given, is told after each
  // minibatch, from the calling thread, and again from the start if the call
  // is repeated. An attempt that takes longer than `attempt_timeout` is given
  // up, and the server takes its work back.
  absl::StatusOr<v1::UpdateResult> UpdatePolicy(
      v1::UpdatePolicyRequest& request,
      const std::function<void(const v1::UpdateProgress&)>& progress = nullptr,
      absl::Duration attempt_timeout = absl::Minutes(10))
      ABSL_LOCKS_EXCLUDED(write_mu_, mu_);
  // Ended recordings, page by page; no lease is needed.
  absl::StatusOr<v1::ListRecordingsResponse> ListRecordings(
      const v1::ListRecordingsRequest& request);
  // One of them with its steps; no lease is needed.
  absl::StatusOr<v1::Recording> GetRecording(const std::string& episode_id);
  // Forgets recordings; how many there were.
  absl::StatusOr<int64_t> DiscardRecordings(
      v1::DiscardRecordingsRequest request) ABSL_LOCKS_EXCLUDED(write_mu_, mu_);

  bool has_lease() const ABSL_LOCKS_EXCLUDED(mu_);
  // Forgets the lease, which the server has given to another or lost.
  void DropLease() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using Stub = v1::PolicyTraining::Stub;

  // The number of the next write. FAILED_PRECONDITION without a lease.
  absl::StatusOr<v1::LearnerWrite> NextWrite() const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_mu_);
  // Accounts for the outcome of a write.
  void NoteOutcome(const v1::LearnerWrite& write, const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_mu_);
  // Numbers the request, calls, and accounts for the outcome.
  template <typename Request, typename Response>
  absl::StatusOr<Response> Write(
      const std::string& method,
      grpc::Status (Stub::*call)(grpc::ClientContext*, const Request&,
                                 Response*),
      Request& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_mu_);

  const RetryPolicy retry_;
  const std::unique_ptr<Stub> stub_;

  absl::Mutex write_mu_;  // Held during a writing call.
  mutable absl::Mutex mu_ ABSL_ACQUIRED_AFTER(write_mu_);
  int64_t token_ ABSL_GUARDED_BY(mu_) = 0;  // 0: no lease.
  int64_t last_sequence_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_TRAINING_CLIENT_H_
