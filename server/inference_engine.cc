#include "server/inference_engine.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "c10/core/InferenceMode.h"
#include "core/policy/inference_policy.h"
#include "core/policy/packed_policy.h"
#include "server/batch_rows.h"
#include "server/grpc_status.h"
#include "server/held_rows.h"
#include "server/record_steps.h"

namespace esper::server {
namespace {

EpisodeTable::Options TableOptions(const InferenceOptions& options,
                                   const policy::PolicySpec& spec) {
  EpisodeTable::Options table;
  table.max_episodes = options.max_episodes;
  table.lease = options.episode_lease;
  table.driver_head = static_cast<int>(DriverHead(spec));
  if (table.driver_head >= 0) {
    table.idle_choice = spec.heads[table.driver_head].idle_choice;
  }
  return table;
}

ActionBatcher::Options BatcherOptions(const InferenceOptions& options) {
  return {options.workers, options.max_batch_rows, options.max_queued_calls};
}

ActionBatcher::Waited WaitObserver(EngineMetrics* metrics) {
  if (metrics == nullptr) return nullptr;
  return [metrics](absl::Duration waited) { metrics->ObserveQueue(waited); };
}

// A superseded episode keeps its row while a batch holds it, and a step whose
// client holds the state has a row lent to it; rows beyond `max_episodes` make
// sure that opening does not have to wait for that.
int64_t StateRows(const InferenceOptions& options) {
  const int64_t in_batches =
      int64_t{options.workers} *
      std::max(options.max_batch_rows, options.max_rows_per_call);
  return options.max_episodes + in_batches;
}

// What a worker computes in; grows to the largest batch.
struct Workspace {
  BatchRows rows;
  policy::ActingResult result;
};

Workspace& ThreadWorkspace() {
  static thread_local Workspace workspace;
  workspace.rows.Clear();
  return workspace;
}

template <typename T>
std::vector<T> Slice(const std::vector<T>& values, int64_t row, int64_t width) {
  const auto begin = values.begin() + row * width;
  return std::vector<T>(begin, begin + width);
}

// Writes row after row of what was computed into the answers.
void FillAnswers(const policy::ActingResult& result,
                 const policy::HeadLayout& layout, int64_t version,
                 const std::vector<StepTicket*>& tickets) {
  const int64_t heads = layout.num_heads();
  const policy::Choices& choices = result.choices;
  for (size_t row = 0; row < tickets.size(); ++row) {
    StepAnswer& answer = tickets[row]->answer;
    answer.version = version;
    answer.actions = Slice(choices.actions, row, heads);
    answer.continuous =
        Slice(choices.continuous, row, layout.continuous_width());
    answer.log_probs = Slice(choices.log_probs, row, heads);
    answer.entropies = Slice(choices.entropies, row, heads);
    answer.value = result.network.values[row];
  }
}

}  // namespace

InferenceEngine::InferenceEngine(const InferenceOptions& options,
                                 PolicyStore* policies,
                                 RecordingStore* recordings,
                                 ServerCounters* counters, Clock clock)
    : policies_(policies),
      counters_(counters),
      metrics_(options.metrics),
      masks_(policies->spec()),
      pool_(policies->spec().lstm_layers, policies->spec().hidden_dim,
            StateRows(options)),
      episodes_(TableOptions(options, policies->spec()), &pool_,
                std::move(clock), recordings),
      batcher_(
          BatcherOptions(options),
          [this](ActionBatcher::Calls calls) {
            return RunBatch(std::move(calls));
          },
          WaitObserver(options.metrics)) {}

void InferenceEngine::Enqueue(std::unique_ptr<InferenceCall> call) {
  batcher_.Enqueue(std::move(call));
}

ActionBatcher::Calls InferenceEngine::RunBatch(ActionBatcher::Calls calls) {
  ActionBatcher::Calls deferred;
  CallList steps;
  CallList closings;
  for (auto& queued : calls) {
    auto* call = static_cast<InferenceCall*>(queued.get());
    const absl::StatusOr<bool> claimed = Claim(call);
    if (!claimed.ok()) {
      call->Finish(claimed.status());
    } else if (!*claimed) {
      deferred.push_back(std::move(queued));
    } else {
      (call->action_ != nullptr ? steps : closings).push_back(call);
    }
  }
  RunAndFinish(steps);
  RunAndFinish(closings);
  return deferred;
}

absl::StatusOr<bool> InferenceEngine::Claim(InferenceCall* call) {
  if (call->action_ != nullptr) {
    auto tickets = episodes_.BeginSteps(call->action_->claims);
    if (!tickets.ok()) return tickets.status();
    if (!tickets->has_value()) return false;
    call->steps_ = **std::move(tickets);
    return true;
  }
  auto tickets = episodes_.BeginClose(call->close_->claims);
  if (!tickets.ok()) return tickets.status();
  if (!tickets->has_value()) return false;
  call->closed_ = **std::move(tickets);
  return true;
}

void InferenceEngine::Commit(InferenceCall* call) {
  if (call->action_ != nullptr) {
    ReturnRows(&call->steps_, &pool_);
    episodes_.CommitSteps(call->steps_);
    for (const StepTicket& ticket : call->steps_) {
      ++(ticket.repeated ? counters_->steps_repeated
                         : counters_->actions_served);
    }
  } else {
    episodes_.CommitClose(call->closed_);
  }
}

void InferenceEngine::Abort(InferenceCall* call) {
  if (call->action_ != nullptr) {
    ReturnRows(&call->steps_, &pool_);
    episodes_.AbortSteps(call->steps_);
  } else {
    episodes_.AbortClose(call->closed_);
  }
}

void InferenceEngine::RunAndFinish(const CallList& calls) {
  if (calls.empty()) return;
  const absl::Status status = CatchErrors([&] { return Run(calls); });
  if (!status.ok() && calls.size() > 1) {
    for (InferenceCall* call : calls) RunAndFinish({call});
    return;
  }
  for (InferenceCall* call : calls) {
    if (status.ok()) {
      Commit(call);
    } else {
      Abort(call);
    }
    call->Finish(status);
  }
}

absl::Status InferenceEngine::Run(const CallList& calls) {
  const absl::Time start = absl::Now();
  const auto acting = policies_->Acting();
  if (!acting.ok()) return acting.status();
  const auto& policy = *acting;
  int64_t rows = 0;
  for (InferenceCall* call : calls) call->policy_version_ = policy->version;
  // Everything below makes numbers, never gradients.
  c10::InferenceMode inference_mode;
  if (calls.front()->action_ != nullptr) {
    rows = TakeSteps(*policy, calls);
  } else {
    ValueFinalStates(*policy, calls);
  }
  if (metrics_ != nullptr) metrics_->ObserveBatch(rows, absl::Now() - start);
  return absl::OkStatus();
}

int64_t InferenceEngine::TakeSteps(const PublishedPolicy& policy,
                                   const CallList& calls) {
  Workspace& workspace = ThreadWorkspace();
  BatchRows& rows = workspace.rows;
  std::vector<StepTicket*> tickets;
  for (InferenceCall* call : calls) {
    std::vector<int64_t> fresh;  // Rows that are not answered from memory.
    for (size_t row = 0; row < call->steps_.size(); ++row) {
      StepTicket& ticket = call->steps_[row];
      if (ticket.repeated) continue;
      fresh.push_back(static_cast<int64_t>(row));
      tickets.push_back(&ticket);
      rows.AddKey({ticket.seed, static_cast<uint64_t>(ticket.step),
                   ticket.deterministic});
    }
    rows.Add(call->action_->observations, call->action_->categorical,
             &call->action_->masks, fresh);
  }
  if (tickets.empty()) return 0;

  const policy::PolicySpec& spec = policies_->spec();
  LendRows(tickets, &pool_);
  for (const StepTicket* ticket : tickets) {
    rows.AddState(pool_.h(ticket->state_row), pool_.c(ticket->state_row));
  }
  const policy::InferencePolicy& acting = *policy.policy;
  policy::ActingResult& result = workspace.result;
  acting.packed().Act(rows.Step(policy.scaler, spec.hidden_dim), rows.Choices(),
                      acting.floors(), &result);
  FillAnswers(result, acting.layout(), policy.version, tickets);
  // Before the states are written: what fails from there on cannot be retried.
  for (InferenceCall* call : calls) {
    StageSteps(*call->action_, masks_, call->steps_);
  }
  const int64_t size = pool_.row_size();
  for (size_t row = 0; row < tickets.size(); ++row) {
    pool_.Write(tickets[row]->state_row, result.network.h.data() + row * size,
                result.network.c.data() + row * size);
  }
  ReadHeldStates(tickets, pool_);
  ++counters_->batches_run;
  return static_cast<int64_t>(tickets.size());
}

void InferenceEngine::ValueFinalStates(const PublishedPolicy& policy,
                                       const CallList& calls) {
  Workspace& workspace = ThreadWorkspace();
  BatchRows& rows = workspace.rows;
  std::vector<CloseTicket*> tickets;
  for (InferenceCall* call : calls) {
    std::vector<int64_t> truncated;
    for (size_t row = 0; row < call->closed_.size(); ++row) {
      CloseTicket& ticket = call->closed_[row];
      if (ticket.episode == nullptr || !ticket.truncated) continue;
      truncated.push_back(static_cast<int64_t>(row));
      tickets.push_back(&ticket);
      rows.AddState(pool_.h(ticket.state_row), pool_.c(ticket.state_row));
    }
    rows.Add(call->close_->observations, call->close_->categorical,
             /*masks=*/nullptr, truncated);
  }
  if (tickets.empty()) return;

  policy.policy->packed().Value(
      rows.Step(policy.scaler, policies_->spec().hidden_dim),
      &workspace.result);
  for (size_t row = 0; row < tickets.size(); ++row) {
    tickets[row]->bootstrap = workspace.result.network.values[row];
  }
  ++counters_->batches_run;
}

}  // namespace esper::server
