#include "server/evaluate_stream.h"

#include <algorithm>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "core/policy/graph_bytes.h"
#include "proto/codec/error_detail.h"
#include "proto/codec/tensor_codec.h"
#include "server/grpc_status.h"
#include "server/recorded_batch.h"
#include "server/refusal.h"
#include "server/training_messages.h"

namespace esper::server {
// One stream: reads a request, has it worked on by the learner's thread, writes
// the reply, reads the next. So one message is in flight at a time, and the
// client's flow control is its own pace.
class EvaluateStream final
    : public grpc::ServerBidiReactor<v1::EvaluateActionsRequest,
                                     v1::EvaluateActionsResponse> {
 public:
  EvaluateStream(EvaluateStreams& streams, grpc::CallbackServerContext* context)
      : streams_(streams), context_(context) {}

  void Start() { StartRead(&request_); }

  void OnReadDone(bool ok) override {
    if (!ok) {
      FinishOnce(grpc::Status::OK);
      return;
    }
    {
      absl::MutexLock lock(&mu_);
      if (finished_) return;
      busy_ = true;
    }
    response_.Clear();
    streams_.learner_.Run(
        [this](ppo::Learner& learner) { return Handle(learner); },
        [this](const absl::Status& status) { Reply(status); });
  }

  void OnWriteDone(bool ok) override {
    if (!ok) {
      FinishOnce(grpc::Status::CANCELLED);
      return;
    }
    {
      absl::MutexLock lock(&mu_);
      if (finished_) return;
      busy_ = false;
      idle_since_ = absl::Now();
    }
    StartRead(&request_);
  }

  void OnDone() override {
    streams_.Remove(this);
    FreeGraphs();
    delete this;
  }

  // Ends the stream if it holds graphs and has not moved since `deadline`.
  void ExpireIfIdleSince(absl::Time deadline) {
    {
      absl::MutexLock lock(&mu_);
      if (finished_ || busy_ || graphs_.empty() || idle_since_ > deadline) {
        return;
      }
      // From here on no request is taken up, so no work can hold this stream
      // when the call is over.
      finished_ = true;
    }
    FreeGraphs();
    Finish(ToGrpcStatus(
        Refuse("EVALUATION_EXPIRED", "evaluation_id",
               "An open evaluation was idle for too long and was freed.",
               "Send cotangents soon after the evaluation."),
        context_, &streams_.counters_));
  }

  int64_t open_graphs() const {
    absl::MutexLock lock(&mu_);
    return static_cast<int64_t>(graphs_.size());
  }

 private:
  struct Graph {
    GraphBudget::Share memory;  // Given back after the graph is freed.
    std::unique_ptr<ppo::OpenEvaluation> evaluation;
  };
  using Graphs = std::map<int64_t, Graph>;

  // On the learner's thread: does what the request asks and fills the reply.
  absl::Status Handle(ppo::Learner& learner) {
    if (context_->IsCancelled()) return absl::CancelledError("cancelled");
    switch (request_.payload_case()) {
      case v1::EvaluateActionsRequest::kEvaluate:
        return Evaluate(learner, request_.evaluate());
      case v1::EvaluateActionsRequest::kCotangents:
        return Accumulate(learner, request_.cotangents());
      case v1::EvaluateActionsRequest::PAYLOAD_NOT_SET:
        break;
    }
    return Refuse("MALFORMED_REQUEST", "payload",
                  "The message holds neither an evaluation nor cotangents.",
                  "Set evaluate or cotangents.");
  }

  absl::Status Evaluate(ppo::Learner& learner, const v1::Evaluate& request) {
    const int64_t id = request.evaluation_id();
    if (id <= last_id_) {
      return Refuse(
          "MALFORMED_REQUEST", "evaluation_id",
          absl::StrCat("evaluation_id ", id, " is not above ", last_id_, "."),
          "Number the evaluations of a stream upwards from 1.");
    }
    DropExpired(learner.optimizer_steps());
    if (request.keep_graph() &&
        open_graphs() >= streams_.options_.max_open_evaluations) {
      return Refuse("BUDGET_EXCEEDED", "max_open_evaluations",
                    absl::StrCat("The stream holds ", open_graphs(),
                                 " open evaluations, as many as allowed."),
                    "Send cotangents for them first.");
    }
    auto trajectories = DecodeEpisodes(request, streams_.recordings_,
                                       learner.spec(), streams_.masks_);
    if (!trajectories.ok()) return trajectories.status();
    Graph graph;
    if (request.keep_graph()) {
      auto memory = TakeMemory(learner, *trajectories);
      if (!memory.ok()) return memory.status();
      graph.memory = *std::move(memory);
    }
    auto evaluation = learner.Evaluate(*trajectories, request.keep_graph());
    if (!evaluation.ok()) return evaluation.status();
    last_id_ = id;

    v1::Evaluation* reply = response_.mutable_evaluation();
    reply->set_evaluation_id(id);
    reply->set_optimizer_steps(learner.optimizer_steps());
    streams_.learner_.policies().FillHeader(reply->mutable_header());
    const ppo::EvaluationNumbers numbers = (*evaluation)->Numbers();
    codec::EncodeTensor(numbers.valid, reply->mutable_valid());
    v1::EvaluatedNumbers* out = reply->mutable_numbers();
    out->set_kind(v1::NUMBER_KIND_EVALUATED);
    codec::EncodeTensor(numbers.log_probs, out->mutable_log_probs());
    codec::EncodeTensor(numbers.entropies, out->mutable_entropies());
    codec::EncodeTensor(numbers.values, out->mutable_values());
    if (numbers.q_values.defined()) {
      codec::EncodeTensor(numbers.q_values, out->mutable_q_values());
    }
    if (numbers.contributions.defined()) {
      codec::EncodeTensor(numbers.contributions, out->mutable_contributions());
    }
    codec::EncodeTensor(numbers.trainable, out->mutable_trainable());

    if (request.keep_graph()) {
      graph.evaluation = *std::move(evaluation);
      absl::MutexLock lock(&mu_);
      graphs_[id] = std::move(graph);
    }
    return absl::OkStatus();
  }

  // Memory for the graph of `trajectories`, taken before there is one.
  absl::StatusOr<GraphBudget::Share> TakeMemory(
      const ppo::Learner& learner,
      const std::vector<ppo::Trajectory>& trajectories) {
    int64_t steps = 0;
    for (const ppo::Trajectory& row : trajectories) {
      steps = std::max(steps, row.length());
    }
    const int64_t bytes = policy::EvaluationGraphBytes(
        learner.spec(), learner.config().precision,
        static_cast<int64_t>(trajectories.size()), steps);
    const auto refuse = [&](const std::string& budget, int64_t limit,
                            int64_t used, const std::string& holder) {
      return Refuse(
          "BUDGET_EXCEEDED", budget,
          absl::StrCat("The graph of this evaluation takes ", bytes >> 20,
                       " MiB; ", holder, " hold ", used >> 20, " of ",
                       limit >> 20, " MiB."),
          "Send cotangents for open evaluations first, or split the batch by "
          "episodes.");
    };
    const int64_t own = graph_bytes();
    const int64_t limit = streams_.options_.max_stream_graph_bytes;
    if (bytes > limit - own) {
      return refuse("max_stream_graph_mb", limit, own,
                    "open evaluations of this stream");
    }
    auto share = streams_.budget_.Take(bytes);
    if (!share.has_value()) {
      return refuse("max_graph_mb", streams_.budget_.bytes(),
                    streams_.budget_.used(), "open evaluations of all streams");
    }
    return *std::move(share);
  }

  int64_t graph_bytes() const {
    absl::MutexLock lock(&mu_);
    int64_t bytes = 0;
    for (const auto& [id, graph] : graphs_) bytes += graph.memory.bytes();
    return bytes;
  }

  absl::Status Accumulate(ppo::Learner& learner,
                          const v1::Cotangents& request) {
    return streams_.learner_.WriteNow(learner, request.write(), &response_,
                                      [this, &request](ppo::Learner& owner) {
                                        return AccumulateOnce(owner, request);
                                      });
  }

  absl::Status AccumulateOnce(ppo::Learner& learner,
                              const v1::Cotangents& request) {
    auto cotangents = DecodeCotangents(request);
    if (!cotangents.ok()) return cotangents.status();
    const int64_t id = request.evaluation_id();
    ppo::OpenEvaluation* evaluation = nullptr;
    {
      absl::MutexLock lock(&mu_);
      const auto it = graphs_.find(id);
      if (it != graphs_.end()) evaluation = it->second.evaluation.get();
    }
    if (evaluation == nullptr) {
      return Refuse(
          "NOT_DIFFERENTIABLE", "evaluation_id",
          absl::StrCat("Evaluation ", id,
                       " is not open in this stream: it was never made here, "
                       "was made without keep_graph, or was used."),
          "Evaluate again with keep_graph, and send cotangents once.");
    }
    // Cotangents that are refused as they stand leave the evaluation open.
    // Only this thread takes single graphs out, so the pointer stays good.
    auto norm = learner.AccumulateGradients(*evaluation, *cotangents);
    if (!evaluation->differentiable() || IsExpired(norm.status())) Drop(id);
    if (!norm.ok()) return norm.status();
    v1::GradientAccumulated* reply = response_.mutable_accumulated();
    reply->set_evaluation_id(id);
    reply->set_gradient_norm(*norm);
    return absl::OkStatus();
  }

  static bool IsExpired(const absl::Status& status) {
    const auto detail = DetailOf(status);
    return detail.has_value() && detail->reason == "EVALUATION_EXPIRED";
  }

  void Drop(int64_t id) {
    absl::MutexLock lock(&mu_);
    graphs_.erase(id);
  }

  // Graphs of weights that have moved since can never be used.
  void DropExpired(int64_t optimizer_steps) {
    if (optimizer_steps == graphs_of_steps_) return;
    graphs_of_steps_ = optimizer_steps;
    absl::MutexLock lock(&mu_);
    graphs_.clear();
  }

  void Reply(const absl::Status& status) {
    if (!status.ok()) {
      streams_.counters_.CountRefusal(codec::DetailOrDefault(status).reason);
      response_.Clear();
      *response_.mutable_refusal() = codec::EncodeRefusal(status);
    }
    {
      absl::MutexLock lock(&mu_);
      if (finished_) return;
    }
    StartWrite(&response_);
  }

  void FinishOnce(const grpc::Status& status) {
    {
      absl::MutexLock lock(&mu_);
      if (finished_) return;
      finished_ = true;
    }
    Finish(status);
  }

  // Graphs die on the thread that made them.
  void FreeGraphs() {
    auto graphs = std::make_shared<Graphs>();
    {
      absl::MutexLock lock(&mu_);
      graphs->swap(graphs_);
    }
    if (graphs->empty()) return;
    streams_.learner_.RunCleanup([graphs] { graphs->clear(); });
  }

  EvaluateStreams& streams_;
  grpc::CallbackServerContext* const context_;
  v1::EvaluateActionsRequest request_;
  v1::EvaluateActionsResponse response_;
  // Learner's thread only.
  int64_t last_id_ = 0;
  int64_t graphs_of_steps_ = 0;  // Optimiser steps when they were made.

  mutable absl::Mutex mu_;
  Graphs graphs_ ABSL_GUARDED_BY(mu_);
  bool busy_ ABSL_GUARDED_BY(mu_) = false;  // Between a read and its reply.
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  absl::Time idle_since_ ABSL_GUARDED_BY(mu_) = absl::Now();
};

EvaluateStreams::EvaluateStreams(LearnerThread& learner,
                                 const RecordingStore& recordings,
                                 ServerCounters& counters,
                                 const EvaluateStreamOptions& options)
    : learner_(learner),
      recordings_(recordings),
      counters_(counters),
      options_(options),
      masks_(learner.policies().spec()),
      budget_(options.max_graph_bytes),
      watch_([this] { Watch(); }) {}

EvaluateStreams::~EvaluateStreams() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  watch_.join();
}

grpc::ServerBidiReactor<v1::EvaluateActionsRequest,
                        v1::EvaluateActionsResponse>*
EvaluateStreams::Open(grpc::CallbackServerContext* context) {
  auto* stream = new EvaluateStream(*this, context);
  {
    absl::MutexLock lock(&mu_);
    streams_.insert(stream);
  }
  stream->Start();
  return stream;
}

int64_t EvaluateStreams::OpenEvaluations() const {
  absl::MutexLock lock(&mu_);
  int64_t graphs = 0;
  for (const EvaluateStream* stream : streams_) graphs += stream->open_graphs();
  return graphs;
}

void EvaluateStreams::Remove(EvaluateStream* stream) {
  absl::MutexLock lock(&mu_);
  streams_.erase(stream);
}

void EvaluateStreams::Watch() {
  const absl::Duration period =
      std::min(absl::Seconds(1), options_.graph_timeout / 4);
  absl::MutexLock lock(&mu_);
  while (!mu_.AwaitWithTimeout(absl::Condition(&stopping_), period)) {
    const absl::Time deadline = absl::Now() - options_.graph_timeout;
    // A stream cannot go away meanwhile: `Remove` waits for this lock.
    for (EvaluateStream* stream : streams_) stream->ExpireIfIdleSince(deadline);
  }
}

}  // namespace esper::server
