#ifndef ESPER_SERVER_EPISODE_TABLE_H_
#define ESPER_SERVER_EPISODE_TABLE_H_

#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/clock.h"
#include "server/episode_types.h"
#include "server/state_pool.h"

namespace esper::server {

class RecordingStore;

// Knows every open episode: who opened it, which step comes next, what was
// answered last, which row holds its recurrent state, and when it expires.
//
// A step is taken exactly once. `BeginSteps` claims the episodes of a call;
// until `CommitSteps` or `AbortSteps` nobody else touches their state rows. The
// last step sent again is answered from memory. A call for an episode that is
// claimed is told to wait (never refused), so that a retry that overtakes the
// reply to the first try gets the same answer.
//
// An episode ends by being closed, by a higher incarnation of its environment
// key, or by its lease. The last `remembered` ended ones are remembered, so
// that late calls learn why; older ones are unknown.
//
// Thread safety: any thread may call any method. No tensor work but the zeroing
// of assigned rows happens under the lock.
class EpisodeTable {
 public:
  struct Options {
    int max_episodes = 16384;                  // Open at a time, > 0.
    absl::Duration lease = absl::Minutes(10);  // Idle time allowed, > 0.
    int remembered = 65536;                    // Ended episodes, > 0.
    // Head of an answer's actions that outcomes speak of; -1: none, and their
    // choice is not checked.
    int driver_head = -1;
    // Choice of it that an environment may fall back to; -1: none.
    int64_t idle_choice = -1;
  };

  // `pool` and `recordings` must outlive the table. Without `recordings` (null)
  // no episode can be recorded.
  EpisodeTable(const Options& options, StatePool* pool, Clock clock,
               RecordingStore* recordings = nullptr);

  // Opens episodes, all or none; returns their ids in order. Errors, naming
  // the row: MALFORMED_REQUEST (empty or over-long key, incarnation 0, a key
  // twice), WRONG_INCARNATION, BUDGET_EXCEEDED (max_episodes), and those of
  // RecordingStore::Open.
  absl::StatusOr<std::vector<std::string>> Open(
      const std::vector<EpisodeStart>& starts) ABSL_LOCKS_EXCLUDED(mu_);

  // Claims the steps of one call, all or none, and renews the leases. Nothing:
  // one of the episodes is claimed by another call; try again when that has
  // ended. Errors, naming the row: UNKNOWN_EPISODE, EPISODE_EXPIRED,
  // WRONG_INCARNATION, STEP_OUT_OF_ORDER (with the expected step),
  // MALFORMED_REQUEST (an episode twice, an outcome at step 0, none at a later
  // step of a recorded episode), INVALID_ACTION (an outcome whose choice is
  // neither the chosen nor the idle one), and those of
  // RecordingStore::MakeRoom. Rows whose client holds the state pass through:
  // nothing is remembered of them.
  absl::StatusOr<std::optional<std::vector<StepTicket>>> BeginSteps(
      const std::vector<StepClaim>& claims) ABSL_LOCKS_EXCLUDED(mu_);

  // Ends the claim: the steps were taken, the state rows are written, each
  // ticket's `answer` is what was answered, and the steps of recorded episodes
  // are staged.
  void CommitSteps(const std::vector<StepTicket>& tickets)
      ABSL_LOCKS_EXCLUDED(mu_);
  // Ends the claim: nothing happened.
  void AbortSteps(const std::vector<StepTicket>& tickets)
      ABSL_LOCKS_EXCLUDED(mu_);

  // The same for ending episodes. Errors: as above; STEP_OUT_OF_ORDER if the
  // number of steps is wrong; MALFORMED_REQUEST if the last outcome is missing,
  // or given where no step was taken. An episode closed before gives a ticket
  // with its stored answer.
  absl::StatusOr<std::optional<std::vector<CloseTicket>>> BeginClose(
      const std::vector<CloseClaim>& claims) ABSL_LOCKS_EXCLUDED(mu_);
  // Frees the rows; each ticket's `bootstrap` is remembered with its return.
  void CommitClose(const std::vector<CloseTicket>& tickets)
      ABSL_LOCKS_EXCLUDED(mu_);
  void AbortClose(const std::vector<CloseTicket>& tickets)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Episodes that have ended since the start, by cause: "closed", "expired",
  // "superseded".
  std::map<std::string, int64_t> EndedByCause() const ABSL_LOCKS_EXCLUDED(mu_);

  // Ends the recordings of all open episodes, as the server stops. No call may
  // be under way.
  void EndRecordings() ABSL_LOCKS_EXCLUDED(mu_);

  // Episodes open, without those whose lease has run out.
  int64_t OpenCount() ABSL_LOCKS_EXCLUDED(mu_);

  absl::Duration lease() const { return options_.lease; }

 private:
  // Why an ended episode ended, and what its closing answered.
  struct Ended {
    enum class Why { kClosed, kExpired, kSuperseded } why = Why::kClosed;
    std::string owner;
    uint64_t incarnation = 0;
    float bootstrap = 0;
    double episode_return = 0;
  };

  static const char* CauseName(Ended::Why why);
  absl::Status CheckStarts(const std::vector<EpisodeStart>& starts) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The open episode that a row names, or why there is none. To somebody else
  // than its owner an episode is as good as unknown.
  template <typename Claim>
  absl::StatusOr<std::shared_ptr<Episode>> Find(const Claim& claim,
                                                int64_t row) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // `outcome` tells of the last step that `episode` took.
  absl::Status CheckOutcome(const Episode& episode, const Outcome& outcome,
                            int64_t row) const;
  absl::StatusOr<StepTicket> CheckStep(const StepClaim& claim,
                                       int64_t row) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<CloseTicket> CheckClose(const CloseClaim& claim,
                                         int64_t row) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Whether the episode of some ticket is claimed already.
  template <typename Ticket>
  static bool AnyClaimed(const std::vector<Ticket>& tickets);
  // Marks the episodes of all tickets claimed and renews their leases.
  template <typename Ticket>
  void ClaimAll(const std::vector<Ticket>& tickets)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Makes room in the recordings of all tickets.
  absl::Status MakeRoom(const std::vector<StepTicket>& tickets)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Ends the claim on one episode; frees what it has if it has ended.
  void Unclaim(Episode* episode) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Renew(const std::shared_ptr<Episode>& episode)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ExpireIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Gives back the state row of an ended episode, and its recording to the
  // store.
  void Free(Episode* episode) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Takes the episode out of the table and remembers it; what it has is freed
  // now, or, if it is claimed, when the claim ends.
  void End(std::shared_ptr<Episode> episode, Ended ended)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  StatePool* const pool_;
  const Clock clock_;
  RecordingStore* const recordings_;

  mutable absl::Mutex mu_;
  absl::flat_hash_map<std::string, std::shared_ptr<Episode>> by_id_
      ABSL_GUARDED_BY(mu_);
  // By owner and environment key.
  absl::flat_hash_map<std::string, std::shared_ptr<Episode>> by_key_
      ABSL_GUARDED_BY(mu_);
  // Oldest lease first: all leases are equally long.
  std::list<std::shared_ptr<Episode>> by_lease_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<std::string, Ended> ended_ ABSL_GUARDED_BY(mu_);
  std::deque<std::string> ended_order_ ABSL_GUARDED_BY(mu_);  // Oldest first.
  std::map<std::string, int64_t> ended_by_cause_ ABSL_GUARDED_BY(mu_);
};

}  // namespace esper::server
#endif  // ESPER_SERVER_EPISODE_TABLE_H_
