#ifndef ESPER_SERVER_LEARNER_LEASE_H_
#define ESPER_SERVER_LEARNER_LEASE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/number_log.h"

namespace esper::server {

// Lets one learner write at a time, and each of its writes happen once.
//
// A lease has a token that rises with every acquisition, so a holder that was
// cut off and comes back with an old token cannot write. Each writing call
// under a token carries a sequence number, 1, 2, 3, ...; the answer of the last
// one is kept and given again when the number is repeated, so a call whose
// reply was lost can be retried. A refused call does not use up its number.
//
// Thread safety: any thread may call any method. The caller makes sure that
// `Begin` and `Finish` of one write are not interleaved with another's (writes
// run on one training thread).
class LearnerLease {
 public:
  struct Options {
    absl::Duration duration = absl::Seconds(60);  // > 0.
  };
  struct Grant {
    int64_t token = 0;
    absl::Duration duration;
    // Its last holder was another one, or there was none since the start or
    // since `End`.
    bool taken_over = false;
  };

  // `now` is the clock; it must not go back. `tokens` gives out the tokens and
  // must outlive this; null: they are unique in this object alone.
  LearnerLease(const Options& options, std::function<absl::Time()> now,
               NumberLog* tokens = nullptr);

  // A new token for `holder`, at once if the lease is free, expired or its
  // own. ABORTED with reason STALE_LEASE while another holder's is alive;
  // INVALID_ARGUMENT if the name is empty; INTERNAL if the token cannot be
  // kept.
  absl::StatusOr<Grant> Acquire(const std::string& holder)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Restarts the lease's time. ABORTED with STALE_LEASE if `token` is not the
  // current one; an expired lease that nobody took is renewed.
  absl::StatusOr<absl::Duration> Renew(int64_t token) ABSL_LOCKS_EXCLUDED(mu_);

  // Ends the lease. ABORTED with STALE_LEASE as above.
  absl::Status Release(int64_t token) ABSL_LOCKS_EXCLUDED(mu_);

  // Admits a write by the call of this name and renews the lease. Empty: the
  // write is new, do it and call `Finish`. A string: it was done before, this
  // was its answer. ABORTED with STALE_LEASE for another token;
  // INVALID_ARGUMENT with MALFORMED_REQUEST for a number that is neither the
  // last nor the next, or that another call has used.
  absl::StatusOr<std::optional<std::string>> Begin(int64_t token,
                                                   int64_t sequence,
                                                   const std::string& call)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Stores the answer of a write that was done.
  void Finish(int64_t token, int64_t sequence, const std::string& call,
              std::string answer) ABSL_LOCKS_EXCLUDED(mu_);

  // Holder of a lease that is alive, or empty.
  std::string Holder() const ABSL_LOCKS_EXCLUDED(mu_);

  // Highest token given so far.
  int64_t Token() const ABSL_LOCKS_EXCLUDED(mu_);
  // Ends the lease, whoever holds it; later tokens are above `at_least` too,
  // so that they rise over restarts of the server.
  void End(int64_t at_least) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  absl::Status CheckToken(int64_t token) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  const std::function<absl::Time()> now_;
  NumberLog* const tokens_;

  mutable absl::Mutex mu_;
  std::string holder_ ABSL_GUARDED_BY(mu_);       // Empty: released.
  std::string last_holder_ ABSL_GUARDED_BY(mu_);  // Stays when it is released.
  int64_t token_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Time expiry_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  int64_t last_sequence_ ABSL_GUARDED_BY(mu_) = 0;
  std::string last_call_ ABSL_GUARDED_BY(mu_);
  std::string last_answer_ ABSL_GUARDED_BY(mu_);
};

}  // namespace esper::server
#endif  // ESPER_SERVER_LEARNER_LEASE_H_
