#include "server/inference_reply.h"

#include <algorithm>
#include <string>

#include "proto/codec/tensor_codec.h"

namespace esper::server {
namespace {

int64_t CommonVersion(const std::vector<StepTicket>& tickets, int64_t current) {
  const int64_t first = tickets.front().answer.version;
  for (const StepTicket& ticket : tickets) {
    if (ticket.answer.version != first) return current;
  }
  return first;
}

bool IsHeld(const StepTicket& ticket) { return ticket.held != nullptr; }

}  // namespace

StepReplyEncoder::StepReplyEncoder(const PolicyStore* policies,
                                   const StateCodec* states)
    : policies_(policies),
      states_(states),
      wide_actions_(HasWideHead(policies->spec())) {}

void StepReplyEncoder::Encode(const std::vector<StepTicket>& tickets,
                              int64_t version, bool with_entropies,
                              v1::GetActionResponse* response) const {
  policies_->FillHeader(CommonVersion(tickets, version),
                        response->mutable_header());
  const int64_t rows = static_cast<int64_t>(tickets.size());
  const int64_t heads =
      static_cast<int64_t>(tickets.front().answer.actions.size());
  std::vector<int64_t> actions;
  const int64_t width =
      static_cast<int64_t>(tickets.front().answer.continuous.size());
  std::vector<float> continuous, log_probs, entropies, values;
  std::vector<int64_t> versions;
  for (const StepTicket& ticket : tickets) {
    const StepAnswer& answer = ticket.answer;
    actions.insert(actions.end(), answer.actions.begin(), answer.actions.end());
    continuous.insert(continuous.end(), answer.continuous.begin(),
                      answer.continuous.end());
    log_probs.insert(log_probs.end(), answer.log_probs.begin(),
                     answer.log_probs.end());
    entropies.insert(entropies.end(), answer.entropies.begin(),
                     answer.entropies.end());
    values.push_back(answer.value);
    versions.push_back(answer.version);
  }
  if (wide_actions_) {
    codec::EncodeValues(actions, {rows, heads}, response->mutable_actions());
  } else {
    codec::EncodeValues(std::vector<uint8_t>(actions.begin(), actions.end()),
                        {rows, heads}, response->mutable_actions());
  }
  if (width > 0) {
    codec::EncodeValues(continuous, {rows, width},
                        response->mutable_continuous_actions());
  }
  v1::BehaviourNumbers* behaviour = response->mutable_behaviour();
  behaviour->set_kind(v1::NUMBER_KIND_BEHAVIOUR);
  codec::EncodeValues(log_probs, {rows, heads}, behaviour->mutable_log_probs());
  codec::EncodeValues(values, {rows}, behaviour->mutable_values());
  if (with_entropies) {
    codec::EncodeValues(entropies, {rows, heads},
                        behaviour->mutable_entropies());
  }
  codec::EncodeValues(versions, {rows}, response->mutable_policy_versions());
  if (std::none_of(tickets.begin(), tickets.end(), IsHeld)) return;
  for (const StepTicket& ticket : tickets) {
    response->add_recurrent_states(IsHeld(ticket) ? states_->Encode(ticket.next)
                                                  : std::string());
  }
}

void EncodeClosed(const std::vector<CloseTicket>& tickets,
                  v1::CloseEpisodesResponse* response) {
  const int64_t rows = static_cast<int64_t>(tickets.size());
  std::vector<float> bootstraps;
  std::vector<double> returns;
  for (const CloseTicket& ticket : tickets) {
    bootstraps.push_back(ticket.bootstrap);
    returns.push_back(ticket.episode_return);
  }
  codec::EncodeValues(bootstraps, {rows}, response->mutable_bootstrap_values());
  codec::EncodeValues(returns, {rows}, response->mutable_returns());
}

}  // namespace esper::server
