#ifndef ESPER_SERVER_FOLLOWER_H_
#define ESPER_SERVER_FOLLOWER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/policy/policy_spec.h"
#include "esper/v1/policy_admin.pb.h"
#include "server/checkpoint_store.h"
#include "server/clock.h"
#include "server/follower_link.h"
#include "server/policy_store.h"
#include "server/snapshot_file.h"

namespace esper::server {

// The role of a server without a learner: it serves the versions of another
// server, its source, and goes on serving the one it has while the source is
// away. The last version is kept in the checkpoint folder, if there is one, so
// that also a restarted follower serves then.
//
//   FindSpec -> Publish what was found -> Run -> (following) -> Stop
//
// Thread safety: any thread may call `Status` and `Stop`; the rest is for the
// thread that starts the server.
class Follower {
 public:
  // `keep` must outlive this; one without a folder keeps nothing.
  Follower(const FollowerOptions& options, CheckpointStore& keep, bool keeps,
           Clock clock);

  // The specification to serve: the source's, which must be `spec` if that is
  // given. If the source is away: `spec`, or else that of the version kept.
  // SPEC_MISMATCH; UNAVAILABLE or DEADLINE_EXCEEDED if the source is away and
  // nobody else knows. Waits at most FollowerOptions::start_timeout.
  absl::StatusOr<policy::PolicySpec> FindSpec(
      const std::optional<policy::PolicySpec>& spec);

  // Publishes the version that was found on the way, if one was, to
  // `policies`, of the specification that was found. It must outlive this.
  absl::Status Begin(PolicyStore& policies);

  // Follows from now on. `on_ready` is called once, when there is a version,
  // perhaps before this returns.
  void Run(std::function<void()> on_ready);

  void Stop() { link_.Stop(); }

  void FillStatus(v1::FollowerStatus* status) const;
  const std::string& source() const { return link_.source(); }

 private:
  // A version that was found before there was a store.
  struct Found {
    SnapshotFile file;
    std::string sha256;
  };

  // The version kept in the checkpoint folder.
  std::optional<Found> FindKept() const;
  // Lets a version act. On the thread of the link, or before `Run`.
  absl::Status Publish(const SnapshotFile& file);
  absl::Status Accept(ReceivedVersion version);
  void Keep(const ReceivedVersion& version);

  CheckpointStore& keep_;
  const bool keeps_;
  const Clock clock_;
  PolicyStore* policies_ = nullptr;
  std::optional<Found> found_;
  std::function<void()> on_ready_;

  std::atomic<int64_t> versions_followed_{0};
  FollowerLink link_;  // Last: its thread uses all of the above.
};

}  // namespace esper::server
#endif  // ESPER_SERVER_FOLLOWER_H_
