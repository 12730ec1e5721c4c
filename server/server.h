#ifndef ESPER_SERVER_SERVER_H_
#define ESPER_SERVER_SERVER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "core/policy/policy_spec.h"
#include "core/ppo/learner_options.h"
#include "grpcpp/channel.h"
#include "server/access/access_control.h"
#include "server/admin_service.h"
#include "server/checkpoint_store.h"
#include "server/clock.h"
#include "server/evaluate_stream.h"
#include "server/follower.h"
#include "server/follower_gate.h"
#include "server/inference_options.h"
#include "server/inference_service.h"
#include "server/learner_thread.h"
#include "server/metrics/server_metrics.h"
#include "server/number_log.h"
#include "server/oip_service.h"
#include "server/policy_store.h"
#include "server/policy_versions.h"
#include "server/recording_store.h"
#include "server/server_counters.h"
#include "server/serving_status.h"
#include "server/training_service.h"
#include "server/transport/endpoints.h"
#include "server/transport/listen_options.h"

namespace esper::server {

struct ServerOptions : ListenOptions {
  std::string device = "auto";  // "auto", "cpu" or "cuda:N".
  // Without value: the network-growing policy with slots r0c0, r0c1, r0c2.
  std::optional<policy::PolicySpec> spec;
  uint64_t init_seed = 0;      // Initial weights.
  std::string checkpoint_dir;  // Empty: checkpoints are refused.
  // The checkpoint to start from: a name; "latest"; or "latest_if_any", which
  // means fresh weights in a folder without checkpoints. Empty: fresh weights.
  std::string restore;
  int keep_checkpoints = 5;  // Newest of those that no caller named, >= 1.
  int keep_versions = 4;     // Newest to roll back to, [2, 1024].
  InferenceOptions inference;
  ppo::LearnerConfig learner;
  LearnerThread::Options learner_thread;
  RecordingOptions recordings;
  EvaluateStreamOptions streams;
  // Where metrics are served over HTTP, "host:port"; empty: nowhere.
  std::string metrics_address;
  // With a source, the server follows that one and has no learner; then `spec`
  // without value is the source's, `checkpoint_dir` keeps the last version, and
  // `restore`, `init_seed`, `learner` and the precision mean nothing.
  FollowerOptions follow;
  Clock clock = SteadyNow;
};

// Owns the policy, the learner, the services and the gRPC server.
//
//   Create -> (serving) -> Drain -> destructor
//
// Thread safety: any thread may call any method after `Create`.
class Server {
 public:
  // Serves when it returns. INVALID_ARGUMENT for an option outside its range,
  // FAILED_PRECONDITION for a device that is not here, PERMISSION_DENIED for an
  // address beyond this machine without `insecure`, UNAVAILABLE if the address
  // cannot be listened on, and the errors of restoring a checkpoint. A
  // follower: also those of `Follower::FindSpec`.
  static absl::StatusOr<std::unique_ptr<Server>> Create(
      const ServerOptions& options);

  // Drains, and cancels what is open.
  ~Server();

  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Reports "not serving", refuses new work with DRAINING, finishes what was
  // accepted, then stops listening. Calls still open after `grace` (idle
  // streams) are cancelled. Returns when all is done; a second call waits for
  // the first.
  void Drain(absl::Duration grace) ABSL_LOCKS_EXCLUDED(drain_mu_);

  // Port of `address`; 0 for a Unix socket or no listener.
  int port() const { return endpoints_->port(); }
  // Of `admin_address` and `health_address`, likewise.
  int admin_port() const { return endpoints_->admin_port(); }
  int health_port() const { return endpoints_->health_port(); }
  int metrics_port() const { return metrics_.port(); }
  // Calls from inside the process, for tests.
  std::shared_ptr<grpc::Channel> InProcessChannel() {
    return endpoints_->InProcessChannel();
  }

  PolicyStore& policies() { return *policies_; }
  InferenceService& inference() { return *inference_; }
  LearnerThread& learner() { return *learner_; }  // Not of a follower.
  RecordingStore& recordings() { return *recordings_; }
  ServerCounters& counters() { return counters_; }

 private:
  explicit Server(const ServerOptions& options);

  absl::Status CreateAccess();
  // What `restore` stands for: a checkpoint, or empty for fresh weights.
  std::string CheckpointToRestore() const;

  // The learner, fresh or from a checkpoint, its first version in the store,
  // and its thread.
  absl::Status CreateLearner();
  absl::Status CreateRecordings();
  void CreateServices(const std::string& device);
  absl::Status Listen();
  absl::Status ServeMetrics();
  PolicyStore::Options StoreOptions() const;

  // The role of a follower (server/server_follower.cc).
  bool follows() const { return !options_.follow.source.empty(); }
  absl::Status CreateFollower();
  void CreateFollowerServices(ServingStatus::Gauges gauges,
                              const std::string& device);
  void StartFollowing();

  ServerOptions options_;
  ServerMetrics metrics_;
  std::unique_ptr<AccessControl> access_;  // Null: callers are not told apart.
  ServerCounters counters_;
  CheckpointStore checkpoints_;
  NumberLog lease_tokens_;
  std::unique_ptr<PolicyStore> policies_;
  std::unique_ptr<PolicyVersions> versions_;
  std::unique_ptr<LearnerThread> learner_;
  std::unique_ptr<RecordingStore> recordings_;
  std::unique_ptr<InferenceService> inference_;
  std::unique_ptr<OipService> oip_;  // Over the episodes of `inference_`.
  std::unique_ptr<TrainingService> training_;
  std::unique_ptr<AdminService> admin_;
  // Instead of learner, training and administration.
  std::unique_ptr<Follower> follower_;
  std::unique_ptr<ServingStatus> follower_status_;
  std::unique_ptr<FollowerGate> gate_;

  absl::Mutex drain_mu_;
  bool drained_ ABSL_GUARDED_BY(drain_mu_) = false;
  std::unique_ptr<Endpoints> endpoints_;  // Last: serves all of the above.
};

}  // namespace esper::server
#endif  // ESPER_SERVER_SERVER_H_
