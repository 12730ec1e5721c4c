#include "server/recording_calls.h"

#include <algorithm>
#include <utility>

#include "server/refusal.h"

namespace esper::server {
namespace {

constexpr int kPage = 1000;

}  // namespace

absl::Status ListRecordings(const RecordingStore& recordings,
                            const v1::ListRecordingsRequest& request,
                            v1::ListRecordingsResponse* response) {
  if (!v1::RecordingState_IsValid(request.state())) {
    return Refuse("MALFORMED_REQUEST", "state", "There is no such state.",
                  "Leave it unset for recordings of every state.");
  }
  if (request.max_results() < 0 || request.after() < 0) {
    return Refuse("MALFORMED_REQUEST",
                  request.after() < 0 ? "after" : "max_results",
                  "The number is negative.", "Leave it unset for the default.");
  }
  const int limit = request.max_results() == 0
                        ? kPage
                        : std::min(request.max_results(), kPage);
  RecordingStore::Page page =
      recordings.List(request.state(), request.after(), limit);
  for (v1::RecordingInfo& info : page.recordings) {
    *response->add_recordings() = std::move(info);
  }
  response->set_next(page.next);
  return absl::OkStatus();
}

absl::Status GetRecording(const RecordingStore& recordings,
                          const v1::GetRecordingRequest& request,
                          v1::GetRecordingResponse* response) {
  auto recording = recordings.Read(request.episode_id());
  if (!recording.ok()) return recording.status();
  *response->mutable_recording() = *std::move(recording);
  return absl::OkStatus();
}

absl::Status DiscardRecordings(RecordingStore& recordings,
                               const v1::DiscardRecordingsRequest& request,
                               v1::DiscardRecordingsResponse* response) {
  const auto discarded = recordings.Discard(
      {request.episode_ids().begin(), request.episode_ids().end()},
      request.all_incomplete());
  if (!discarded.ok()) return discarded.status();
  response->set_discarded(*discarded);
  return absl::OkStatus();
}

}  // namespace esper::server
