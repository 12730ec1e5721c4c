#ifndef ESPER_CLIENT_ENV_LEASE_BOARD_H_
#define ESPER_CLIENT_ENV_LEASE_BOARD_H_

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace esper::client {

// What the thread that runs episodes and the thread that sends heartbeats tell
// each other.
//
// Thread safety: any thread may call any method.
class LeaseBoard {
 public:
  // A registration: the id to send heartbeats under. Forgets all leases.
  void Register(const std::string& worker_id) ABSL_LOCKS_EXCLUDED(mu_);
  std::string worker_id() const ABSL_LOCKS_EXCLUDED(mu_);

  void Add(const std::string& lease_id) ABSL_LOCKS_EXCLUDED(mu_);
  void Remove(const std::string& lease_id) ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<std::string> Leases() const ABSL_LOCKS_EXCLUDED(mu_);

  // The coordinator took these away.
  void Revoke(const std::vector<std::string>& lease_ids)
      ABSL_LOCKS_EXCLUDED(mu_);
  // Of the leases still here, those taken away.
  std::set<std::string> Revoked() const ABSL_LOCKS_EXCLUDED(mu_);

  // The run is over, or the coordinator is gone: nobody is left to report to.
  void EndRun() ABSL_LOCKS_EXCLUDED(mu_);
  bool run_ended() const ABSL_LOCKS_EXCLUDED(mu_);

  void CountSteps(int64_t steps) ABSL_LOCKS_EXCLUDED(mu_);
  // Steps since the last call; `CountSteps` gives back what was not delivered.
  int64_t TakeSteps() ABSL_LOCKS_EXCLUDED(mu_);

  // The coordinator does not know the worker `worker_id`. Without effect if it
  // is registered under another id meanwhile.
  void ForgetRegistration(const std::string& worker_id)
      ABSL_LOCKS_EXCLUDED(mu_);

 private:
  mutable absl::Mutex mu_;
  std::string worker_id_ ABSL_GUARDED_BY(mu_);  // Empty: not registered.
  std::set<std::string> leases_ ABSL_GUARDED_BY(mu_);
  std::set<std::string> revoked_ ABSL_GUARDED_BY(mu_);  // Subset of leases_.
  int64_t steps_ ABSL_GUARDED_BY(mu_) = 0;
  bool run_ended_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace esper::client
#endif  // ESPER_CLIENT_ENV_LEASE_BOARD_H_
