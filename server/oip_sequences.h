#ifndef ESPER_SERVER_OIP_SEQUENCES_H_
#define ESPER_SERVER_OIP_SEQUENCES_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/clock.h"
#include "server/inference_engine.h"
#include "server/oip_model.h"

namespace esper::server {

// One request of a sequence, from its arrival to its answer.
class OipCall {
 public:
  explicit OipCall(OipRequest request) : request_(std::move(request)) {}
  virtual ~OipCall() = default;

  const OipRequest& request() const { return request_; }
  // As QueuedCall::Abandoned.
  virtual absl::Status Abandoned() const = 0;
  // Called once. With OK: the rows' answers and the number of the step they
  // took.
  virtual void Finish(const absl::Status& status,
                      const std::vector<StepTicket>& tickets, int64_t step) = 0;

 private:
  friend class OipSequences;
  OipRequest request_;
};

// Sequences of the Open Inference Protocol on top of episodes: a sequence of N
// rows is N episodes, which this class opens, steps and closes.
//
// Requests of one sequence run one after another in the order they came. A
// request that fails does not advance its sequence; one that fails to start it
// leaves no sequence behind. A sequence that nobody asks for is forgotten when
// the lease of its episodes has run out. Episodes end as aborted: the protocol
// has no rewards, so nothing can be learned from them.
//
// Thread safety: any thread may call any method.
class OipSequences {
 public:
  // `engine` must outlive this object, and be drained before it goes.
  OipSequences(InferenceEngine* engine, Clock clock);

  // Takes a call and finishes it once, with the errors of the episode table,
  // of the engine, UNKNOWN_EPISODE for a sequence that was not started,
  // BAD_SHAPE if the number of rows changes, and QUEUE_FULL if more than
  // `kMaxWaiting` requests wait for the same sequence.
  void Submit(std::unique_ptr<OipCall> call) ABSL_LOCKS_EXCLUDED(mu_);

  // Sequences that are known, for tests.
  int64_t size() const ABSL_LOCKS_EXCLUDED(mu_);

  static constexpr size_t kMaxWaiting = 64;

 private:
  // While `busy`, the request that runs owns the first group of fields.
  struct Sequence {
    std::vector<std::string> episodes;  // [N]; empty: not open.
    uint64_t incarnation = 0;
    int64_t step = 0;

    std::string caller;
    std::string name;
    bool busy = false;
    std::deque<std::unique_ptr<OipCall>> waiting;
    absl::Time last_used;
    std::list<std::shared_ptr<Sequence>>::iterator idle_position;
  };
  class Step;

  // Makes the sequence ready for the request: opens it if it starts, names its
  // episodes in the claims.
  absl::Status Prepare(Sequence* sequence, OipCall* call);
  absl::Status Open(Sequence* sequence, const OipCall& call);
  void Close(Sequence* sequence);
  void Run(std::shared_ptr<Sequence> sequence, std::unique_ptr<OipCall> call);
  // Ends a call and runs the next one of the sequence.
  void End(std::shared_ptr<Sequence> sequence, std::unique_ptr<OipCall> call,
           const absl::Status& status, const std::vector<StepTicket>& tickets)
      ABSL_LOCKS_EXCLUDED(mu_);
  // The call that runs next, or null: then the sequence is idle or forgotten.
  std::unique_ptr<OipCall> NextCall(const std::shared_ptr<Sequence>& sequence)
      ABSL_LOCKS_EXCLUDED(mu_);
  void ForgetExpired() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  InferenceEngine* const engine_;
  const Clock clock_;

  mutable absl::Mutex mu_;
  // By caller and name.
  absl::flat_hash_map<std::pair<std::string, std::string>,
                      std::shared_ptr<Sequence>>
      sequences_ ABSL_GUARDED_BY(mu_);
  // Those that are not busy, longest idle first.
  std::list<std::shared_ptr<Sequence>> idle_ ABSL_GUARDED_BY(mu_);
  uint64_t last_incarnation_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_OIP_SEQUENCES_H_
