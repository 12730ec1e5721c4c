#ifndef ESPER_CLIENT_TRAINER_EPISODE_SCHEDULER_H_
#define ESPER_CLIENT_TRAINER_EPISODE_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace esper::client {

// Seed of the episode with this number: a pure function of both, so the stream
// of episodes does not depend on who runs them, or on restarts.
uint64_t EpisodeSeed(uint64_t root_seed, uint64_t episode);

// An episode handed to a worker.
struct Lease {
  std::string id;
  uint64_t episode = 0;  // Its number in the run's stream, from 0.
  uint64_t seed = 0;
  std::string environment_key;
  uint64_t incarnation = 0;
  // Deterministic actions, and nothing is trained on it. `episode` then numbers
  // the evaluation's own stream of seeds.
  bool evaluation = false;
};

// Decides which worker runs which episode.
//
// Episodes come in rounds of a fixed size; a round's episodes are handed out
// until all are delivered. An episode goes back into the round when its worker
// falls silent, gives it up, or stops naming it in its heartbeats; after
// `max_attempts` it is given up, and a new one takes its place. `EndRound`
// takes what is still out away from the workers; the next round starts with
// those episodes. A round of evaluation runs the same episodes, from 0, every
// time; what fails or is late in it is dropped.
//
// Pure logic: every method that depends on the time is told it.
//
// Thread safety: any thread may call any method.
class EpisodeScheduler {
 public:
  struct Options {
    std::string run_name = "run";  // Part of the environment keys.
    uint64_t root_seed = 42;
    // Number of the first new episode: where an earlier run of the folder
    // stopped.
    uint64_t first_episode = 0;
    // Above those of the run before: incarnations rise from here.
    uint64_t first_incarnation = 1;
    absl::Duration lease = absl::Seconds(30);  // > 0.
    int max_attempts = 3;                      // >= 1.
  };

  // What a worker said of a lease.
  enum class Verdict {
    kAccepted,   // First report; the episode is delivered.
    kDuplicate,  // Reported before; nothing changes.
    kReturned,   // Given up by the worker; goes out again.
  };

  struct HeartbeatReply {
    std::vector<std::string> revoked;  // Leases to give up.
    bool stop = false;
  };

  explicit EpisodeScheduler(const Options& options);

  // The worker's id. A name that is known belongs to a process that restarted:
  // what the old one had goes out again. INVALID_ARGUMENT for an empty name or
  // environments < 1.
  absl::StatusOr<std::string> Register(const std::string& name,
                                       int environments, absl::Time now)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Starts a round of `episodes` (> 0), after `EndRound` of the one before.
  void StartRound(int episodes) ABSL_LOCKS_EXCLUDED(mu_);
  void StartEvaluation(int episodes) ABSL_LOCKS_EXCLUDED(mu_);
  void EndRound() ABSL_LOCKS_EXCLUDED(mu_);

  // Up to `max` episodes, and not more than the worker's share of the round by
  // environments, so that the first one to ask does not take all. May be none.
  // NOT_FOUND (UNKNOWN_WORKER) for an id that was never given.
  absl::StatusOr<std::vector<Lease>> LeaseEpisodes(const std::string& worker_id,
                                                   int max, absl::Time now)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Keeps the named leases, and takes back those that the worker should have
  // but does not name (the reply that gave them was lost). NOT_FOUND as above.
  absl::StatusOr<HeartbeatReply> Heartbeat(
      const std::string& worker_id, const std::vector<std::string>& lease_ids,
      absl::Time now) ABSL_LOCKS_EXCLUDED(mu_);

  // A finished (`delivered`) or abandoned episode. NOT_FOUND (UNKNOWN_WORKER,
  // UNKNOWN_LEASE) for ids never given, FAILED_PRECONDITION (LEASE_REVOKED) for
  // a lease that was taken away.
  absl::StatusOr<Verdict> Report(const std::string& worker_id,
                                 const std::string& lease_id, bool delivered,
                                 absl::Time now) ABSL_LOCKS_EXCLUDED(mu_);

  // The lease of this id, while it is remembered. NOT_FOUND otherwise.
  absl::StatusOr<Lease> Find(const std::string& lease_id) const
      ABSL_LOCKS_EXCLUDED(mu_);

  // Takes the leases of workers that have been silent for longer than the
  // lease; their names.
  std::vector<std::string> ExpireSilent(absl::Time now)
      ABSL_LOCKS_EXCLUDED(mu_);

  // From now on workers get no episode and are told to stop.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);
  bool stopped() const ABSL_LOCKS_EXCLUDED(mu_);
  // True once every live worker was told to stop.
  bool AllToldToStop() const ABSL_LOCKS_EXCLUDED(mu_);

  int live_workers() const ABSL_LOCKS_EXCLUDED(mu_);
  int open_leases() const ABSL_LOCKS_EXCLUDED(mu_);
  // Number of the next new episode.
  uint64_t next_episode() const ABSL_LOCKS_EXCLUDED(mu_);
  // Episodes given up after `max_attempts`.
  int64_t failed_episodes() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Work {
    uint64_t episode = 0;
    int attempts = 0;  // Times it was handed out.
    bool evaluation = false;
  };
  enum class State { kOpen, kDelivered, kReturned, kRevoked };
  struct Entry {
    Lease lease;
    Work work;
    std::string worker_id;
    State state = State::kOpen;
    absl::Time granted;
  };
  struct Worker {
    std::string name;
    int environments = 1;
    absl::Time last_seen;
    bool live = true;
    bool told_to_stop = false;
  };

  absl::StatusOr<Worker*> FindWorker(const std::string& id, absl::Time now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  int OpenLeasesOf(const std::string& worker_id) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  int ShareOf(const Worker& worker) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Lease MakeLease(const Work& work) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Marks the lease and puts its episode back, or a new one in its place.
  void TakeBack(Entry& entry, State state) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TakeBackAllOf(const std::string& worker_id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ForgetOldLeases() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;

  mutable absl::Mutex mu_;
  std::map<std::string, Worker> workers_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, Entry> leases_ ABSL_GUARDED_BY(mu_);
  std::deque<std::string> lease_order_ ABSL_GUARDED_BY(mu_);  // Oldest first.
  std::deque<Work> pending_ ABSL_GUARDED_BY(mu_);
  std::deque<Work> pending_evaluation_ ABSL_GUARDED_BY(mu_);
  bool in_round_ ABSL_GUARDED_BY(mu_) = false;
  bool evaluating_ ABSL_GUARDED_BY(mu_) = false;  // The round, if in one.
  int round_size_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t next_episode_ ABSL_GUARDED_BY(mu_);
  uint64_t next_incarnation_ ABSL_GUARDED_BY(mu_);
  uint64_t next_id_ ABSL_GUARDED_BY(mu_) = 1;
  int64_t failed_episodes_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_TRAINER_EPISODE_SCHEDULER_H_
