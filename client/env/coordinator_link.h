#ifndef ESPER_CLIENT_ENV_COORDINATOR_LINK_H_
#define ESPER_CLIENT_ENV_COORDINATOR_LINK_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/coordinator_client.h"
#include "client/env/lease_board.h"

namespace esper::client {

// A worker's side of the conversation with its coordinator: keeps the
// registration and the lease board up to date.
//
// Thread safety: none; heartbeats go their own way over the board.
class CoordinatorLink {
 public:
  // Both must outlive this.
  CoordinatorLink(CoordinatorClient& coordinator, LeaseBoard& board,
                  std::string worker_name, int environments);

  // Whether a heartbeat or a call found that the coordinator, restarted, does
  // not know this worker: its leases are void, and it has to register again.
  bool NeedsRegistration() const { return board_.worker_id().empty(); }
  absl::StatusOr<v1::RegisterWorkerResponse> Register();

  struct Answer {
    std::vector<v1::EpisodeLease> leases;
    bool done = false;  // The run is over.
  };
  // Up to `max` episodes; what the coordinator gives beyond that is left to it.
  // Asks only when the coordinator wants to be asked
  // again: none before that.
  absl::StatusOr<Answer> Lease(int max, absl::Time now);

  // Delivers, and forgets the lease. A refusal is logged and is no error: the
  // episode went to somebody else. UNAVAILABLE or DEADLINE_EXCEEDED if the
  // coordinator is gone.
  absl::Status Report(v1::ReportEpisodeRequest request);
  // Forgets a lease that the coordinator took away.
  void Forget(const std::string& lease_id) { board_.Remove(lease_id); }

 private:
  CoordinatorClient& coordinator_;
  LeaseBoard& board_;
  const std::string worker_name_;
  const int environments_;
  absl::Time next_question_ = absl::InfinitePast();
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_ENV_COORDINATOR_LINK_H_
