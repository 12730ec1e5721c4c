#ifndef ESPER_SERVER_EPISODE_ID_H_
#define ESPER_SERVER_EPISODE_ID_H_

#include <string>

#include "absl/status/statusor.h"

namespace esper::server {

inline constexpr int kEpisodeIdBytes = 16;

// 16 bytes of the system's randomness: unguessable.
// INTERNAL if the system has none.
absl::StatusOr<std::string> NewEpisodeId();

}  // namespace esper::server
#endif  // ESPER_SERVER_EPISODE_ID_H_
