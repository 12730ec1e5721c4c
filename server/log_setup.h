#ifndef ESPER_SERVER_LOG_SETUP_H_
#define ESPER_SERVER_LOG_SETUP_H_

#include <string>

#include "absl/status/status.h"

namespace esper::server {

// Sends the program's and gRPC's messages to standard error, as lines of text
// or as one JSON object per line (time, level, message).
//   level:  "trace", "debug", "info", "warn", "error", "critical" or "off".
//   format: "text" or "json".
// INVALID_ARGUMENT for any other. Call it once, before other threads log.
absl::Status SetUpLog(const std::string& level, const std::string& format);

}  // namespace esper::server
#endif  // ESPER_SERVER_LOG_SETUP_H_
