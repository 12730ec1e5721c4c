#ifndef ESPER_SERVER_FOLLOWER_LINK_H_
#define ESPER_SERVER_FOLLOWER_LINK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>  // NOLINT: joined in `Stop`.

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "esper/v1/policy_training.grpc.pb.h"
#include "server/clock.h"
#include "server/transport/tls.h"
#include "server/version_receiver.h"

namespace esper::server {

// Which server to follow, and how.
struct FollowerOptions {
  std::string source;  // host:port or unix:PATH; empty: follow nobody.
  // PEM file: authorities that the source's certificate must come from. Empty:
  // the connection is plaintext.
  std::string authorities;
  TlsFiles identity;  // Shown to a source that asks for a certificate.
  // How long a follower that knows no specification waits, at its start, for
  // somebody to tell it; and how long the first answer may take. > 0.
  absl::Duration start_timeout = absl::Seconds(10);
  // Pause after a stream has ended; doubles, with jitter, up to the maximum.
  absl::Duration initial_backoff = absl::Milliseconds(100);
  absl::Duration max_backoff = absl::Seconds(2);
  // A source that is silent for so long is asked for a sign of life, and given
  // up if it gives none in time. Servers allow a question every 5 s.
  absl::Duration keepalive_time = absl::Seconds(10);
  absl::Duration keepalive_timeout = absl::Seconds(5);
  int64_t max_version_bytes = int64_t{4} << 30;  // Of one version's file.
};

// Whether a call ended so because nobody answered.
bool IsAbsent(const absl::Status& status);

// How the link stands.
struct FollowerLinkState {
  bool connected = false;  // A stream is open, and has been answered.
  absl::Time last_contact = absl::InfinitePast();
  std::string last_error;  // Empty while all is well.
};

// The connection of a follower to the server it follows: opens WatchPolicy
// streams, one after the other, and hands on what arrives whole. A stream that
// ends, for whatever reason, is opened again after a pause.
//
// Has one thread, which also runs `accept`: taking a version into use is work
// that no thread of gRPC's should do.
//
// Thread safety: any thread may call any method; `Fetch` before `Start` only.
class FollowerLink {
 public:
  // Takes a version. What fails is logged, and the version asked for again
  // after a pause, unless another one is current by then.
  using Accept = std::function<absl::Status(ReceivedVersion)>;

  FollowerLink(const FollowerOptions& options, Clock clock);
  ~FollowerLink();

  FollowerLink(const FollowerLink&) = delete;
  FollowerLink& operator=(const FollowerLink&) = delete;

  // The current version of the source, asked for on this thread. `patient`:
  // tries again while nobody answers. UNAVAILABLE or DEADLINE_EXCEEDED if
  // nobody does within `start_timeout`; SPEC_MISMATCH if the source's
  // specification is not the one of `spec_digest` (empty: any).
  absl::StatusOr<ReceivedVersion> Fetch(const std::string& spec_digest,
                                        bool patient) ABSL_LOCKS_EXCLUDED(mu_);

  // Follows from now on. `held_version` and `held_sha256` name what is in use
  // already; 0 and empty: nothing.
  void Start(const std::string& spec_digest, int64_t held_version,
             const std::string& held_sha256, Accept accept);

  // Ends the stream and the thread; a version that is being taken is finished.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

  FollowerLinkState State() const ABSL_LOCKS_EXCLUDED(mu_);
  const std::string& source() const { return options_.source; }

 private:
  // Takes a version that a stream brought; false: the stream is not wanted any
  // more.
  using Sink = std::function<absl::StatusOr<bool>(ReceivedVersion)>;

  void Run(const Accept& accept);
  // Reads one stream to its end and returns why it ended; never OK.
  absl::Status ReadStream(absl::Time deadline, const Sink& sink)
      ABSL_LOCKS_EXCLUDED(mu_);
  void NoteContact() ABSL_LOCKS_EXCLUDED(mu_);
  void NoteWell() ABSL_LOCKS_EXCLUDED(mu_);
  void NoteEnd(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_);
  // False if it was told to stop meanwhile.
  bool Pause(absl::Duration pause) ABSL_LOCKS_EXCLUDED(mu_);

  const FollowerOptions options_;
  const Clock clock_;
  const std::unique_ptr<v1::PolicyTraining::Stub> stub_;
  // What the next stream asks for; of the thread that reads streams.
  v1::WatchPolicyRequest request_;
  bool well_ = false;  // The open stream has brought what is current; likewise.

  mutable absl::Mutex mu_;
  FollowerLinkState state_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  // Of the open stream, for `Stop`; null: none.
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mu_) = nullptr;

  std::thread thread_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_FOLLOWER_LINK_H_
