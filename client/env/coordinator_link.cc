#include "client/env/coordinator_link.h"

#include <utility>

#include "client/status.h"
#include "spdlog/spdlog.h"

namespace esper::client {

CoordinatorLink::CoordinatorLink(CoordinatorClient& coordinator,
                                 LeaseBoard& board, std::string worker_name,
                                 int environments)
    : coordinator_(coordinator),
      board_(board),
      worker_name_(std::move(worker_name)),
      environments_(environments) {}

absl::StatusOr<v1::RegisterWorkerResponse> CoordinatorLink::Register() {
  auto registered = coordinator_.RegisterWorker(worker_name_, environments_);
  if (!registered.ok()) return registered.status();
  board_.Register(registered->worker_id());
  next_question_ = absl::InfinitePast();
  spdlog::info("registered as {} ({})", registered->worker_id(), worker_name_);
  return registered;
}

absl::StatusOr<CoordinatorLink::Answer> CoordinatorLink::Lease(int max,
                                                               absl::Time now) {
  Answer answer;
  if (now < next_question_) return answer;
  const std::string worker_id = board_.worker_id();
  auto response = coordinator_.LeaseEpisodes(worker_id, max);
  if (absl::IsNotFound(response.status())) {
    board_.ForgetRegistration(worker_id);
    return answer;
  }
  if (!response.ok()) return response.status();
  for (const v1::EpisodeLease& lease : response->leases()) {
    if (static_cast<int>(answer.leases.size()) == max) {
      // Not on the board, so the heartbeats do not keep it.
      spdlog::warn("the coordinator leases more than the {} asked for", max);
      break;
    }
    board_.Add(lease.lease_id());
    answer.leases.push_back(lease);
  }
  answer.done = response->done();
  if (answer.leases.empty()) {
    next_question_ = now + absl::Seconds(response->retry_after().seconds()) +
                     absl::Nanoseconds(response->retry_after().nanos());
  }
  return answer;
}

absl::Status CoordinatorLink::Report(v1::ReportEpisodeRequest request) {
  const std::string worker_id = board_.worker_id();
  request.set_worker_id(worker_id);
  absl::Status status = coordinator_.ReportEpisode(request);
  if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) {
    return status;
  }
  board_.Remove(request.lease_id());
  if (ReasonOf(status) == "UNKNOWN_WORKER") {
    board_.ForgetRegistration(worker_id);
  }
  if (!status.ok()) {
    spdlog::warn("episode {} was not accepted: {}", request.lease_id(),
                 Describe(status));
  }
  return absl::OkStatus();
}

}  // namespace esper::client
