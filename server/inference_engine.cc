#include "server/inference_engine.h"

#include <algorithm>
#include <utility>

#include "ATen/ops/cat.h"
#include "ATen/ops/index_select.h"
#include "ATen/ops/tensor.h"
#include "c10/core/InferenceMode.h"
#include "core/policy/inference_policy.h"
#include "core/policy/sampler.h"
#include "server/grpc_status.h"
#include "server/held_rows.h"

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

// A superseded episode keeps its row while a batch holds it, and a step whose
// client holds the state has a row lent to it; rows beyond `max_episodes` make
// sure that opening does not have to wait for that.
int64_t StateRows(const InferenceOptions& options) {
  const int64_t in_batches =
      int64_t{options.workers} *
      std::max(options.max_batch_rows, options.max_rows_per_call);
  return options.max_episodes + in_batches;
}

at::Tensor Int64(const std::vector<int64_t>& values) {
  return at::tensor(values, at::kLong);
}

// Collects the rows of several calls that a forward pass needs.
class RowCollector {
 public:
  // rows: those of `tensor` (dim 0) to take. Undefined tensors stay so.
  void Add(const at::Tensor& tensor, const std::vector<int64_t>& rows) {
    if (!tensor.defined()) return;
    const bool whole = tensor.size(0) == static_cast<int64_t>(rows.size());
    parts_.push_back(whole ? tensor : at::index_select(tensor, 0, Int64(rows)));
  }
  at::Tensor Take() const {
    if (parts_.empty()) return {};
    return parts_.size() == 1 ? parts_.front() : at::cat(parts_);
  }

 private:
  std::vector<at::Tensor> parts_;
};

template <typename T>
std::vector<T> Slice(const std::vector<T>& values, int64_t row, int64_t width) {
  const auto begin = values.begin() + row * width;
  return std::vector<T>(begin, begin + width);
}

// Writes row after row of `sample` into the answers.
void FillAnswers(const policy::ActionSample& sample, int64_t version,
                 const std::vector<StepTicket*>& tickets) {
  const int64_t heads = sample.actions.size(1);
  const at::Tensor actions_tensor = sample.actions.contiguous();
  const int64_t* data = actions_tensor.const_data_ptr<int64_t>();
  const std::vector<int64_t> actions(data, data + actions_tensor.numel());
  std::vector<float> continuous;
  int64_t continuous_width = 0;
  if (sample.continuous_actions.defined()) {
    const at::Tensor values = sample.continuous_actions.contiguous();
    const float* begin = values.const_data_ptr<float>();
    continuous.assign(begin, begin + values.numel());
    continuous_width = values.size(1);
  }
  const std::vector<float> log_probs = sample.log_probs.ToVector();
  const std::vector<float> entropies = sample.entropies.ToVector();
  const std::vector<float> values = sample.values.ToVector();
  for (size_t row = 0; row < tickets.size(); ++row) {
    StepAnswer& answer = tickets[row]->answer;
    answer.version = version;
    answer.actions = Slice(actions, row, heads);
    answer.continuous = Slice(continuous, row, continuous_width);
    answer.log_probs = Slice(log_probs, row, heads);
    answer.entropies = Slice(entropies, row, heads);
    answer.value = values[row];
  }
}

}  // namespace

InferenceEngine::InferenceEngine(const InferenceOptions& options,
                                 PolicyStore* policies,
                                 ServerCounters* counters, Clock clock)
    : policies_(policies),
      counters_(counters),
      pool_(policies->spec().lstm_layers, policies->spec().hidden_dim,
            StateRows(options)),
      episodes_(TableOptions(options, policies->spec()), &pool_,
                std::move(clock)),
      batcher_(BatcherOptions(options), [this](ActionBatcher::Calls calls) {
        return RunBatch(std::move(calls));
      }) {}

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
  const auto policy = policies_->Current();
  for (InferenceCall* call : calls) call->policy_version_ = policy->version;
  // Everything below makes numbers, never gradients.
  c10::InferenceMode inference_mode;
  if (calls.front()->action_ != nullptr) {
    TakeSteps(*policy, calls);
  } else {
    ValueFinalStates(*policy, calls);
  }
  return absl::OkStatus();
}

void InferenceEngine::TakeSteps(const PublishedPolicy& policy,
                                const CallList& calls) {
  RowCollector observations, categorical, heads, conditional;
  policy::CounterKeys noise;
  std::vector<StepTicket*> tickets;
  for (InferenceCall* call : calls) {
    std::vector<int64_t> fresh;  // Rows that are not answered from memory.
    for (size_t row = 0; row < call->steps_.size(); ++row) {
      StepTicket& ticket = call->steps_[row];
      if (ticket.repeated) continue;
      fresh.push_back(static_cast<int64_t>(row));
      tickets.push_back(&ticket);
      noise.keys.push_back({ticket.seed, static_cast<uint64_t>(ticket.step),
                            ticket.deterministic});
    }
    if (fresh.empty()) continue;
    observations.Add(call->action_->observations, fresh);
    categorical.Add(call->action_->categorical, fresh);
    heads.Add(call->action_->masks.heads, fresh);
    conditional.Add(call->action_->masks.conditional, fresh);
  }
  if (tickets.empty()) return;

  LendRows(tickets, policies_->spec().lstm_layers, &pool_);
  std::vector<int64_t> state_rows;
  for (const StepTicket* ticket : tickets) {
    state_rows.push_back(ticket->state_row);
  }
  const at::Tensor rows = Int64(state_rows);
  policy::PolicyInputs inputs;
  inputs.observations = policy.scaler.Apply(observations.Take());
  inputs.categorical = categorical.Take();
  inputs.action_masks = heads.Take();
  inputs.conditional_mask = conditional.Take();
  std::tie(inputs.state.h, inputs.state.c) = pool_.Gather(rows);
  const policy::ActionSample sample = policy.policy->GetAction(inputs, noise);
  FillAnswers(sample, policy.version, tickets);
  ReadHeldStates(tickets, sample.next_state.h, sample.next_state.c);
  pool_.Scatter(rows, sample.next_state.h, sample.next_state.c);
  ++counters_->batches_run;
}

void InferenceEngine::ValueFinalStates(const PublishedPolicy& policy,
                                       const CallList& calls) {
  RowCollector observations, categorical;
  std::vector<int64_t> state_rows;
  std::vector<CloseTicket*> tickets;
  for (InferenceCall* call : calls) {
    std::vector<int64_t> truncated;
    for (size_t row = 0; row < call->closed_.size(); ++row) {
      CloseTicket& ticket = call->closed_[row];
      if (ticket.episode == nullptr || !ticket.truncated) continue;
      truncated.push_back(static_cast<int64_t>(row));
      tickets.push_back(&ticket);
      state_rows.push_back(ticket.state_row);
    }
    if (truncated.empty()) continue;
    observations.Add(call->close_->observations, truncated);
    categorical.Add(call->close_->categorical, truncated);
  }
  if (tickets.empty()) return;

  policy::PolicyInputs inputs;
  inputs.observations = policy.scaler.Apply(observations.Take());
  inputs.categorical = categorical.Take();
  std::tie(inputs.state.h, inputs.state.c) = pool_.Gather(Int64(state_rows));
  const std::vector<float> values = policy.policy->GetValue(inputs).ToVector();
  for (size_t row = 0; row < tickets.size(); ++row) {
    tickets[row]->bootstrap = values[row];
  }
  ++counters_->batches_run;
}

}  // namespace esper::server
