#include "server/oip_sequences.h"

#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "server/grpc_status.h"
#include "server/refusal.h"

namespace esper::server {
namespace {

uint64_t RandomSeed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

// Whether the episodes of a sequence are gone.
bool Lost(const absl::Status& status) {
  const auto detail = DetailOf(status);
  return detail.has_value() && (detail->reason == "EPISODE_EXPIRED" ||
                                detail->reason == "UNKNOWN_EPISODE" ||
                                detail->reason == "WRONG_INCARNATION");
}

}  // namespace

// The step of one request on its way through the engine.
class OipSequences::Step : public InferenceCall {
 public:
  Step(ActionInput input, OipSequences* owner,
       std::shared_ptr<Sequence> sequence, std::unique_ptr<OipCall> call)
      : InferenceCall(std::move(input)),
        owner_(owner),
        sequence_(std::move(sequence)),
        call_(std::move(call)) {}

  absl::Status Abandoned() const override { return call_->Abandoned(); }
  void Finish(const absl::Status& status) override {
    owner_->End(std::move(sequence_), std::move(call_), status, steps_);
  }

 private:
  OipSequences* const owner_;
  std::shared_ptr<Sequence> sequence_;
  std::unique_ptr<OipCall> call_;
};

OipSequences::OipSequences(InferenceEngine* engine, Clock clock)
    : engine_(engine), clock_(std::move(clock)) {}

int64_t OipSequences::size() const {
  absl::MutexLock lock(&mu_);
  return static_cast<int64_t>(sequences_.size());
}

void OipSequences::Submit(std::unique_ptr<OipCall> call) {
  const std::string& name = call->request().parameters.sequence;
  std::shared_ptr<Sequence> sequence;
  bool full = false;
  {
    absl::MutexLock lock(&mu_);
    ForgetExpired();
    const std::string& caller = call->request().caller;
    std::shared_ptr<Sequence>& known = sequences_[{caller, name}];
    if (known == nullptr) {
      known = std::make_shared<Sequence>();
      known->caller = caller;
      known->name = name;
    } else if (!known->busy) {
      idle_.erase(known->idle_position);
    }
    if (known->busy) {
      full = known->waiting.size() >= kMaxWaiting;
      if (!full) {
        known->waiting.push_back(std::move(call));
        return;
      }
    } else {
      known->busy = true;
      sequence = known;
    }
  }
  if (full) {
    call->Finish(
        Refuse("QUEUE_FULL", "sequence_id",
               absl::StrCat(kMaxWaiting, " requests wait for the sequence ",
                            name, " already."),
               "Wait for their answers."),
        {}, 0);
    return;
  }
  Run(std::move(sequence), std::move(call));
}

void OipSequences::Run(std::shared_ptr<Sequence> sequence,
                       std::unique_ptr<OipCall> call) {
  const absl::Status ready =
      CatchErrors([&] { return Prepare(sequence.get(), call.get()); });
  if (!ready.ok()) {
    End(std::move(sequence), std::move(call), ready, {});
    return;
  }
  ActionInput input = std::move(call->request_.input);
  engine_->Enqueue(std::make_unique<Step>(
      std::move(input), this, std::move(sequence), std::move(call)));
}

absl::Status OipSequences::Prepare(Sequence* sequence, OipCall* call) {
  std::vector<StepClaim>& claims = call->request_.input.claims;
  if (call->request().parameters.start) {
    Close(sequence);
    const absl::Status opened = Open(sequence, *call);
    if (!opened.ok()) return opened;
  } else if (sequence->episodes.empty()) {
    return Refuse(
        "UNKNOWN_EPISODE", "sequence_id",
        absl::StrCat("The sequence ", sequence->name, " is not open."),
        "Send sequence_start with its first request.");
  } else if (sequence->episodes.size() != claims.size()) {
    return Refuse("BAD_SHAPE", "observations",
                  absl::StrCat("The sequence ", sequence->name,
                               " was started with ", sequence->episodes.size(),
                               " rows, and the input observations has ",
                               claims.size(), "."),
                  "Send the same number of rows with every request.");
  }
  for (size_t row = 0; row < claims.size(); ++row) {
    claims[row].caller = sequence->caller;
    claims[row].episode_id = sequence->episodes[row];
    claims[row].incarnation = sequence->incarnation;
    claims[row].step = sequence->step;
  }
  return absl::OkStatus();
}

absl::Status OipSequences::Open(Sequence* sequence, const OipCall& call) {
  {
    absl::MutexLock lock(&mu_);
    sequence->incarnation = ++last_incarnation_;
  }
  const OipParameters& parameters = call.request().parameters;
  const uint64_t seed = parameters.seed.value_or(RandomSeed());
  std::vector<EpisodeStart> starts(call.request().input.claims.size());
  for (size_t row = 0; row < starts.size(); ++row) {
    starts[row].owner = sequence->caller;
    starts[row].environment_key =
        absl::StrCat("sequence/", sequence->name, "/", row);
    starts[row].incarnation = sequence->incarnation;
    starts[row].seed = seed + row;
    starts[row].deterministic = parameters.deterministic;
  }
  auto ids = engine_->episodes().Open(starts);
  if (!ids.ok()) return ids.status();
  sequence->episodes = *std::move(ids);
  sequence->step = 0;
  return absl::OkStatus();
}

void OipSequences::Close(Sequence* sequence) {
  if (sequence->episodes.empty()) return;
  std::vector<CloseClaim> claims(sequence->episodes.size());
  for (size_t row = 0; row < claims.size(); ++row) {
    claims[row].caller = sequence->caller;
    claims[row].episode_id = sequence->episodes[row];
    claims[row].incarnation = sequence->incarnation;
    claims[row].steps = sequence->step;
    claims[row].aborted = true;
  }
  // Nobody else knows these episodes, so none of them is claimed; they may have
  // expired, and then there is nothing to close.
  const auto tickets = engine_->episodes().BeginClose(claims);
  if (tickets.ok() && tickets->has_value()) {
    engine_->episodes().CommitClose(**tickets);
  }
  sequence->episodes.clear();
}

void OipSequences::End(std::shared_ptr<Sequence> sequence,
                       std::unique_ptr<OipCall> call,
                       const absl::Status& status,
                       const std::vector<StepTicket>& tickets) {
  const OipParameters& parameters = call->request().parameters;
  const int64_t step = sequence->step;
  if (status.ok()) {
    ++sequence->step;
    if (parameters.end) Close(sequence.get());
  } else if (parameters.start) {
    Close(sequence.get());
  } else if (Lost(status)) {
    sequence->episodes.clear();
  }
  // The table first, then the answer: whoever has it may ask on at once, and
  // the last answer lets the server go.
  std::unique_ptr<OipCall> next = NextCall(sequence);
  call->Finish(status, tickets, step);
  if (next != nullptr) Run(std::move(sequence), std::move(next));
}

std::unique_ptr<OipCall> OipSequences::NextCall(
    const std::shared_ptr<Sequence>& sequence) {
  absl::MutexLock lock(&mu_);
  if (!sequence->waiting.empty()) {
    auto next = std::move(sequence->waiting.front());
    sequence->waiting.pop_front();
    return next;
  }
  sequence->busy = false;
  if (sequence->episodes.empty()) {
    sequences_.erase({sequence->caller, sequence->name});
  } else {
    sequence->last_used = clock_();
    sequence->idle_position = idle_.insert(idle_.end(), sequence);
  }
  return nullptr;
}

void OipSequences::ForgetExpired() {
  const absl::Time oldest = clock_() - engine_->episodes().lease();
  while (!idle_.empty() && idle_.front()->last_used < oldest) {
    sequences_.erase({idle_.front()->caller, idle_.front()->name});
    idle_.pop_front();
  }
}

}  // namespace esper::server
