#ifndef ESPER_CLIENT_CTL_RECORDINGS_H_
#define ESPER_CLIENT_CTL_RECORDINGS_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "client/training_client.h"

namespace esper::client {

// All ended recordings of a server, oldest first: a line each for people, or
// one JSON array if `json`.
absl::StatusOr<std::string> DescribeRecordings(TrainingClient& training,
                                               bool json);

// The 16 bytes of an episode's id in hexadecimal digits; nothing if `text` is
// something else.
std::optional<std::string> ParseEpisodeId(const std::string& text);

}  // namespace esper::client
#endif  // ESPER_CLIENT_CTL_RECORDINGS_H_
