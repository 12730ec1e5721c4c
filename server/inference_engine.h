#ifndef ESPER_SERVER_INFERENCE_ENGINE_H_
#define ESPER_SERVER_INFERENCE_ENGINE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/codec/mask_codec.h"
#include "server/action_batcher.h"
#include "server/clock.h"
#include "server/episode_table.h"
#include "server/inference_options.h"
#include "server/inference_request.h"
#include "server/metrics/engine_metrics.h"
#include "server/policy_store.h"
#include "server/recording_store.h"
#include "server/server_counters.h"
#include "server/state_pool.h"

namespace esper::server {

// A call for the engine: takes steps or ends episodes.
class InferenceCall : public QueuedCall {
 public:
  explicit InferenceCall(ActionInput action)
      : action_(std::make_unique<ActionInput>(std::move(action))) {}
  explicit InferenceCall(CloseInput close)
      : close_(std::make_unique<CloseInput>(std::move(close))) {}

  int rows() const override {
    return static_cast<int>(action_ ? action_->claims.size()
                                    : close_->claims.size());
  }

 protected:
  friend class InferenceEngine;

  // One of the two is null.
  std::unique_ptr<const ActionInput> action_;
  std::unique_ptr<const CloseInput> close_;
  // The answers, one per row, when `Finish` is called with OK.
  std::vector<StepTicket> steps_;
  std::vector<CloseTicket> closed_;
  int64_t policy_version_ = 0;  // That acted.
};

// Runs the policy for open episodes: batches of calls in, answers out.
//
//   Enqueue -> (batcher) -> claim episodes -> gather state -> forward
//           -> scatter state -> commit -> Finish
//
// A batch runs on one policy version. A call is all or nothing, and no call's
// fault reaches another: if a batch fails, its calls are run one by one.
//
// Thread safety: any thread may call any method.
class InferenceEngine {
 public:
  // The pointers and what `options` points at must outlive the engine. While
  // `policies` has no version, calls end with UNAVAILABLE (NOT_READY).
  InferenceEngine(const InferenceOptions& options, PolicyStore* policies,
                  RecordingStore* recordings, ServerCounters* counters,
                  Clock clock);

  // Takes a call and finishes it exactly once, with the errors of the episode
  // table, of the batcher and of the sampler.
  void Enqueue(std::unique_ptr<InferenceCall> call);

  // Refuses further calls; returns when all accepted ones are finished.
  void Drain() { batcher_.Drain(); }

  EpisodeTable& episodes() { return episodes_; }
  int64_t queued_calls() const { return batcher_.queued(); }

 private:
  using CallList = std::vector<InferenceCall*>;

  ActionBatcher::Calls RunBatch(ActionBatcher::Calls calls);
  // Claims the episodes of a call. False: it must wait.
  absl::StatusOr<bool> Claim(InferenceCall* call);
  void Commit(InferenceCall* call);
  void Abort(InferenceCall* call);
  // Runs claimed calls together; if that fails and there are several, apart.
  void RunAndFinish(const CallList& calls);
  absl::Status Run(const CallList& calls);
  // Returns the rows of the forward pass.
  int64_t TakeSteps(const PublishedPolicy& policy, const CallList& calls);
  void ValueFinalStates(const PublishedPolicy& policy, const CallList& calls);

  PolicyStore* const policies_;
  ServerCounters* const counters_;
  EngineMetrics* const metrics_;  // May be null.
  const codec::MaskCodec masks_;
  StatePool pool_;
  EpisodeTable episodes_;
  ActionBatcher batcher_;  // Last: its threads use all of the above.
};

}  // namespace esper::server
#endif  // ESPER_SERVER_INFERENCE_ENGINE_H_
