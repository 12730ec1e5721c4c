#include "server/action_stream.h"

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "proto/codec/error_detail.h"
#include "server/grpc_status.h"
#include "server/refusal.h"
#include "server/waiting_call.h"

namespace esper::server {
namespace {

// A request is in flight from its arrival until the writing of its answer
// begins. The stream finishes only when nothing is in flight, so it outlives
// every call that the engine holds for it.
class ActionStream final
    : public grpc::ServerBidiReactor<v1::StreamActionsRequest,
                                     v1::StreamActionsResponse> {
 public:
  ActionStream(const ActionStreamParts& parts,
               grpc::CallbackServerContext* context)
      : parts_(parts),
        context_(context),
        caller_(CallerName(parts.access, *context)) {}

  void Start() { StartRead(&request_); }

  void OnReadDone(bool ok) override {
    if (!ok) {
      EndReads(absl::OkStatus());
      return;
    }
    const absl::Status accepted = Accept(request_.request_id());
    if (!accepted.ok()) {
      CountRefusal(accepted);
      EndReads(accepted);
      return;
    }
    Take();
    StartRead(&request_);
  }

  void OnWriteDone(bool ok) override {
    Next next;
    {
      absl::MutexLock lock(&mu_);
      writing_ = false;
      if (!ok) DropAnswers();
      next = NextLocked();
    }
    Do(next);
  }

  void OnCancel() override { cancelled_ = true; }
  void OnDone() override { delete this; }

  // See QueuedCall::Abandoned.
  absl::Status Abandoned() const {
    return AbandonedBy(cancelled_, context_->deadline());
  }

  // Answers a request that was accepted, exactly once. The stream may be gone
  // when this returns.
  void Answer(v1::StreamActionsResponse answer) ABSL_LOCKS_EXCLUDED(mu_) {
    Next next;
    {
      absl::MutexLock lock(&mu_);
      if (broken_) {
        in_flight_.erase(answer.request_id());
      } else {
        answers_.push_back(std::move(answer));
      }
      next = NextLocked();
    }
    Do(next);
  }

  void Refuse(uint64_t request_id, const absl::Status& status) {
    CountRefusal(status);
    v1::StreamActionsResponse answer;
    answer.set_request_id(request_id);
    *answer.mutable_refusal() = codec::EncodeRefusal(status);
    Answer(std::move(answer));
  }

 private:
  enum class Next { kNothing, kWrite, kFinish };

  absl::Status Accept(uint64_t request_id) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    if (in_flight_.contains(request_id)) {
      return server::Refuse(
          "MALFORMED_REQUEST", "request_id",
          absl::StrCat("request_id ", request_id, " is still in flight."),
          "Number the requests of a stream upwards.");
    }
    if (in_flight_.size() >= static_cast<size_t>(parts_.max_requests)) {
      return server::Refuse("BUDGET_EXCEEDED", "max_stream_requests",
                            absl::StrCat("All ", parts_.max_requests,
                                         " requests of the stream are in "
                                         "flight."),
                            "Read answers before sending more.");
    }
    in_flight_.insert(request_id);
    return absl::OkStatus();
  }

  void CountRefusal(const absl::Status& status) {
    parts_.counters->CountRefusal(codec::DetailOrDefault(status).reason);
  }

  // Gives `request_` to the engine, or refuses it.
  void Take();

  // What the stream has to do now; the caller must `Do` it without the lock.
  Next NextLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (writing_ || finished_) return Next::kNothing;
    if (!answers_.empty()) {
      writing_ = true;
      answer_ = std::move(answers_.front());
      answers_.pop_front();
      in_flight_.erase(answer_.request_id());
      return Next::kWrite;
    }
    if (!reads_done_ || !in_flight_.empty()) return Next::kNothing;
    finished_ = true;
    return Next::kFinish;
  }

  // The stream may be gone when this returns, unless `next` is kNothing.
  void Do(Next next) {
    if (next == Next::kWrite) StartWrite(&answer_);
    if (next == Next::kFinish) {
      // What ended the reading was counted then.
      Finish(ToGrpcStatus(final_status_, context_, /*counters=*/nullptr));
    }
  }

  void EndReads(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_) {
    Next next;
    {
      absl::MutexLock lock(&mu_);
      reads_done_ = true;
      final_status_ = status;
      next = NextLocked();
    }
    Do(next);
  }

  // Nobody reads any more.
  void DropAnswers() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    broken_ = true;
    for (const auto& answer : answers_) in_flight_.erase(answer.request_id());
    answers_.clear();
  }

  const ActionStreamParts parts_;
  grpc::CallbackServerContext* const context_;
  const std::string caller_;
  std::atomic<bool> cancelled_{false};
  v1::StreamActionsRequest request_;  // Of the read in progress.
  v1::StreamActionsResponse answer_;  // Of the write in progress.
  absl::Status final_status_;         // Set once, before the stream finishes.

  absl::Mutex mu_;
  absl::flat_hash_set<uint64_t> in_flight_ ABSL_GUARDED_BY(mu_);
  std::deque<v1::StreamActionsResponse> answers_ ABSL_GUARDED_BY(mu_);
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool broken_ ABSL_GUARDED_BY(mu_) = false;  // A write has failed.
  bool reads_done_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

// A request of a stream in the engine.
class StreamCall final : public InferenceCall {
 public:
  StreamCall(ActionInput input, uint64_t request_id, bool entropies,
             const StepReplyEncoder* replies, ActionStream* stream)
      : InferenceCall(std::move(input)),
        request_id_(request_id),
        entropies_(entropies),
        replies_(replies),
        stream_(stream) {}

  absl::Status Abandoned() const override { return stream_->Abandoned(); }

  void Finish(const absl::Status& status) override {
    v1::StreamActionsResponse answer;
    absl::Status encoded = status;
    if (status.ok()) {
      encoded = CatchErrors([&] {
        answer.set_request_id(request_id_);
        replies_->Encode(steps_, policy_version_, entropies_,
                         answer.mutable_response());
        return absl::OkStatus();
      });
    }
    if (encoded.ok()) {
      stream_->Answer(std::move(answer));
    } else {
      stream_->Refuse(request_id_, encoded);
    }
  }

 private:
  const uint64_t request_id_;
  const bool entropies_;
  const StepReplyEncoder* const replies_;
  ActionStream* const stream_;
};

void ActionStream::Take() {
  const uint64_t request_id = request_.request_id();
  const v1::GetActionRequest& request = request_.request();
  const absl::Status status = CatchErrors([&] {
    auto input = parts_.decoder->DecodeAction(request);
    if (!input.ok()) return input.status();
    SetCaller(caller_, &input->claims);
    parts_.engine->Enqueue(std::make_unique<StreamCall>(
        *std::move(input), request_id, request.return_entropies(),
        parts_.replies, this));
    return absl::OkStatus();
  });
  if (!status.ok()) Refuse(request_id, status);
}

}  // namespace

grpc::ServerBidiReactor<v1::StreamActionsRequest, v1::StreamActionsResponse>*
NewActionStream(const ActionStreamParts& parts,
                grpc::CallbackServerContext* context) {
  auto* stream = new ActionStream(parts, context);
  stream->Start();
  return stream;
}

}  // namespace esper::server
