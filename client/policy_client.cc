#include "client/policy_client.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/policy_messages.h"
#include "client/status.h"

namespace esper::client {
namespace {

v1::OpenEpisodesRequest OpenRequest(const std::vector<EpisodeStart>& episodes) {
  v1::OpenEpisodesRequest request;
  for (const EpisodeStart& episode : episodes) {
    v1::EpisodeStart* start = request.add_episodes();
    start->set_environment_key(episode.environment_key);
    start->set_incarnation(episode.incarnation);
    start->set_seed(episode.seed);
    start->set_deterministic(episode.deterministic);
    start->set_record(episode.record);
  }
  return request;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PolicyClient>> PolicyClient::Connect(
    const ConnectOptions& connect, const RetryPolicy& retry) {
  auto channel = client::Connect(connect);
  if (!channel.ok()) return channel.status();
  return std::make_unique<PolicyClient>(*std::move(channel), retry);
}

PolicyClient::PolicyClient(std::shared_ptr<grpc::Channel> channel,
                           const RetryPolicy& retry)
    : retry_(retry), stub_(v1::PolicyInference::NewStub(std::move(channel))) {}

absl::StatusOr<v1::GetPolicyResponse> PolicyClient::GetPolicy() {
  return CallUnary(retry_, "GetPolicy", *stub_,
                   &v1::PolicyInference::Stub::GetPolicy,
                   v1::GetPolicyRequest());
}

absl::StatusOr<std::vector<EpisodeHandle>> PolicyClient::OpenEpisodes(
    std::vector<EpisodeStart> episodes) {
  v1::OpenEpisodesResponse response;
  absl::Status status = RetryCall(
      retry_, "OpenEpisodes", [&](grpc::ClientContext* context, int attempt) {
        if (attempt > 0) {
          for (EpisodeStart& episode : episodes) ++episode.incarnation;
        }
        response.Clear();
        return stub_->OpenEpisodes(context, OpenRequest(episodes), &response);
      });
  if (!status.ok()) return status;
  if (response.episode_ids_size() != static_cast<int>(episodes.size())) {
    return absl::InternalError(
        absl::StrCat("The server opened ", response.episode_ids_size(),
                     " episodes, not ", episodes.size(), "."));
  }
  if (log_ != nullptr) {
    const absl::Status logged = log_->Opened(OpenRequest(episodes), response);
    if (!logged.ok()) return logged;
  }
  std::vector<EpisodeHandle> handles(episodes.size());
  for (size_t i = 0; i < episodes.size(); ++i) {
    handles[i] = {response.episode_ids(i), episodes[i].incarnation};
  }
  return handles;
}

absl::StatusOr<std::vector<ActionRow>> PolicyClient::GetAction(
    const std::vector<StepRow>& rows, bool return_entropies) {
  auto request = ToRequest(rows, return_entropies);
  if (!request.ok()) return request.status();
  auto response = GetActionMessage(*request);
  if (!response.ok()) return response.status();
  return FromResponse(*response, static_cast<int64_t>(rows.size()));
}

absl::StatusOr<v1::GetActionResponse> PolicyClient::GetActionMessage(
    const v1::GetActionRequest& request) {
  auto response = CallUnary(retry_, "GetAction", *stub_,
                            &v1::PolicyInference::Stub::GetAction, request);
  if (response.ok() && log_ != nullptr) {
    const absl::Status logged = log_->Acted(request, *response);
    if (!logged.ok()) return logged;
  }
  return response;
}

absl::StatusOr<std::vector<ClosedEpisode>> PolicyClient::CloseEpisodes(
    const std::vector<EpisodeClose>& episodes) {
  auto request = ToRequest(episodes);
  if (!request.ok()) return request.status();
  auto response =
      CallUnary(retry_, "CloseEpisodes", *stub_,
                &v1::PolicyInference::Stub::CloseEpisodes, *request);
  if (!response.ok()) return response.status();
  if (log_ != nullptr) {
    const absl::Status logged = log_->Closed(*request, *response);
    if (!logged.ok()) return logged;
  }
  return FromResponse(*response, static_cast<int64_t>(episodes.size()));
}

}  // namespace esper::client
