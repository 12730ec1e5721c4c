#ifndef ESPER_SERVER_POLICY_FEED_H_
#define ESPER_SERVER_POLICY_FEED_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <thread>  // NOLINT: joined in the destructor.

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "esper/v1/policy_training.grpc.pb.h"
#include "server/policy_store.h"
#include "server/server_counters.h"

namespace esper::server {

struct PolicyFeedOptions {
  int max_watchers = 256;         // Open streams, >= 0.
  int64_t chunk_bytes = 1 << 20;  // Of one message, in [1, 1 MiB].
};

class WatchStream;

// Sends the version that acts to everyone who watches (WatchPolicy).
//
//   PolicyStore -> (listener) -> the feed's thread: encodes once -> streams
//
// All streams share one encoded file, the newest. A stream has one message in
// flight; when it has sent a whole file it goes on with the newest, if that is
// another one. So neither publishing nor any watcher ever waits for a slow one,
// and what a watcher costs is a message. Streams whose client has gone are
// freed by gRPC's cancellation; the file goes with the last watcher.
//
// Thread safety: any thread may call any method.
class PolicyFeed {
 public:
  // Listens to `policies`, which must hold a version already. `policies` and
  // `counters` must outlive this, and so must every stream's call: shut the
  // gRPC server down first.
  PolicyFeed(PolicyStore& policies, ServerCounters& counters,
             const PolicyFeedOptions& options = {});
  ~PolicyFeed();

  PolicyFeed(const PolicyFeed&) = delete;
  PolicyFeed& operator=(const PolicyFeed&) = delete;

  // The reactor of a new stream; it deletes itself when the call is over.
  grpc::ServerWriteReactor<v1::WatchPolicyResponse>* Open(
      grpc::CallbackServerContext* context,
      const v1::WatchPolicyRequest* request) ABSL_LOCKS_EXCLUDED(mu_);

  // Ends all streams, and those that come, with DRAINING; files that are on
  // their way are not finished.
  void Drain() ABSL_LOCKS_EXCLUDED(mu_);

  int64_t watchers() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  friend class WatchStream;

  // A version as it is sent; shared by the streams.
  struct File {
    std::shared_ptr<const PublishedPolicy> source;
    v1::ResponseHeader header;
    std::string bytes;
    std::string sha256;
  };

  // Why a stream cannot be opened.
  absl::Status Check(const v1::WatchPolicyRequest& request) const
      ABSL_LOCKS_EXCLUDED(mu_);
  void Remove(WatchStream* stream) ABSL_LOCKS_EXCLUDED(mu_);
  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  // The file of the version that acts now.
  absl::StatusOr<std::shared_ptr<const File>> Encode() const;
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return stopping_ || (changed_ && !streams_.empty());
  }

  PolicyStore& policies_;
  ServerCounters& counters_;
  const PolicyFeedOptions options_;

  // Taken before any stream's own mutex.
  mutable absl::Mutex mu_;
  std::set<WatchStream*> streams_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<const File> newest_ ABSL_GUARDED_BY(mu_);
  bool changed_ ABSL_GUARDED_BY(mu_) = true;  // `newest_` may be out of date.
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_POLICY_FEED_H_
