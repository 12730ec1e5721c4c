#include "server/episode_id.h"

#include <sys/random.h>

#include <cerrno>

#include "absl/status/status.h"

namespace esper::server {

absl::StatusOr<std::string> NewEpisodeId() {
  std::string id(kEpisodeIdBytes, '\0');
  ssize_t filled = 0;
  do {
    filled = getrandom(id.data(), id.size(), 0);
  } while (filled < 0 && errno == EINTR);
  // Requests of up to 256 bytes are never cut short.
  if (filled != kEpisodeIdBytes) {
    return absl::InternalError("The system gave no random bytes.");
  }
  return id;
}

}  // namespace esper::server
