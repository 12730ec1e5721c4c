#ifndef ESPER_CLIENT_ACTION_PIPELINE_H_
#define ESPER_CLIENT_ACTION_PIPELINE_H_

#include <grpcpp/channel.h>

#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <thread>  // NOLINT: joined in the destructor.
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/action_stream_link.h"
#include "client/call.h"
#include "client/policy_client.h"
#include "esper/v1/policy_inference.grpc.pb.h"

namespace esper::client {

// Asks a policy server for actions with many requests under way at a time, so
// that environments need not wait for each other.
//
// Requests are answered in the order in which the server finishes them. Two
// that are under way together must not name the same episode, unless they
// repeat the same step. Each attempt has a deadline; attempts that fail because
// the server was not reached, was late or was full are made again, over a new
// connection if need be, with the same steps: the server takes each step once,
// so episodes go on as if nothing had happened.
//
// Thread safety: any thread may call any method.
class ActionPipeline {
 public:
  enum class Transport {
    kStream,  // One StreamActions stream.
    kUnary,   // A GetAction call each.
  };
  struct Options {
    Transport transport = Transport::kStream;
    // Requests under way, >= 1; at most Limits.max_stream_requests of the
    // server for kStream.
    int max_in_flight = 32;
    RetryPolicy retry;
  };
  using Result = absl::StatusOr<std::vector<ActionRow>>;
  // Runs on a thread of gRPC or of the pipeline: must not block. May ask for
  // more actions, if nobody else does at the same time.
  using Done = std::function<void(Result)>;

  ActionPipeline(std::shared_ptr<grpc::Channel> channel,
                 const Options& options);
  // What is under way fails with CANCELLED, before the destructor returns.
  ~ActionPipeline();

  ActionPipeline(const ActionPipeline&) = delete;
  ActionPipeline& operator=(const ActionPipeline&) = delete;

  // Sends one request, and returns; waits while `max_in_flight` are under way.
  // `done` runs exactly once, with one action per row or with an error as of
  // PolicyClient::GetAction, maybe before this returns.
  void GetAction(const std::vector<StepRow>& rows, Done done)
      ABSL_LOCKS_EXCLUDED(mu_);
  // The same as a future.
  std::future<Result> GetAction(const std::vector<StepRow>& rows)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Returns when nothing is under way and every `done` has returned.
  void Wait() ABSL_LOCKS_EXCLUDED(mu_);

  // Attempts after the first of their request, so far.
  int64_t retries() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using Answer = absl::StatusOr<v1::GetActionResponse>;

  struct Request {
    v1::GetActionRequest message;
    int64_t rows = 0;
    Done done;
    absl::Time give_up;      // No attempt starts after this.
    absl::Duration backoff;  // Before the next attempt.
    int attempts = 0;
    // Of the attempt under way: when it is late; otherwise when the next one
    // starts.
    absl::Time due;
    bool under_way = false;
  };
  // An attempt over a unary call.
  struct UnaryCall {
    grpc::ClientContext context;
    v1::GetActionResponse response;
  };

  void Watch() ABSL_LOCKS_EXCLUDED(mu_);
  // When the next request is due; the far future if none is.
  absl::Time NextDue() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void StartAttempt(uint64_t id) ABSL_LOCKS_EXCLUDED(mu_);
  void StartUnary(uint64_t id, Request* request) ABSL_LOCKS_EXCLUDED(mu_);
  std::shared_ptr<ActionStreamLink> LinkLocked()
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EndAttempt(uint64_t id, Answer answer) ABSL_LOCKS_EXCLUDED(mu_);
  void LinkClosed(const ActionStreamLink* link) ABSL_LOCKS_EXCLUDED(mu_);

  bool HasRoom() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return static_cast<int>(requests_.size()) < options_.max_in_flight;
  }
  bool Changed() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return changed_ || stopping_;
  }
  bool Idle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return requests_.empty() && callbacks_ == 0;
  }
  bool Quiet() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return Idle() && links_.empty() && calls_.empty();
  }

  const Options options_;
  const std::unique_ptr<v1::PolicyInference::Stub> stub_;

  mutable absl::Mutex mu_;
  // By number of the attempt under way, or of the last one.
  std::map<uint64_t, std::unique_ptr<Request>> requests_ ABSL_GUARDED_BY(mu_);
  uint64_t next_id_ ABSL_GUARDED_BY(mu_) = 1;
  std::shared_ptr<ActionStreamLink> link_ ABSL_GUARDED_BY(mu_);  // Or null.
  // Streams that have not ended, the one in use included.
  std::map<const ActionStreamLink*, std::shared_ptr<ActionStreamLink>> links_
      ABSL_GUARDED_BY(mu_);
  std::map<uint64_t, std::shared_ptr<UnaryCall>> calls_ ABSL_GUARDED_BY(mu_);
  int callbacks_ ABSL_GUARDED_BY(mu_) = 0;  // That are running.
  int64_t retries_ ABSL_GUARDED_BY(mu_) = 0;
  bool changed_ ABSL_GUARDED_BY(mu_) = false;  // Some `due` has moved.
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread watch_;
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_ACTION_PIPELINE_H_
