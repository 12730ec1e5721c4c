#include "server/waiting_call.h"

namespace esper::server {

absl::Status AbandonedBy(bool cancelled,
                         std::chrono::system_clock::time_point deadline) {
  if (cancelled) return absl::CancelledError("The caller went away.");
  if (deadline <= std::chrono::system_clock::now()) {
    return absl::DeadlineExceededError("The call waited past its deadline.");
  }
  return absl::OkStatus();
}

}  // namespace esper::server
