#ifndef ESPER_SERVER_LISTEN_FLAGS_H_
#define ESPER_SERVER_LISTEN_FLAGS_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/transport/listen_options.h"

namespace esper::server {

// What the command line says of listening, TLS and access. INVALID_ARGUMENT for
// what cannot be read as an option; `CheckListenOptions` judges the rest.
absl::StatusOr<ListenOptions> ListenOptionsFromFlags();

// Logs once who may call.
void LogWhoMayCall(const ListenOptions& options);

}  // namespace esper::server
#endif  // ESPER_SERVER_LISTEN_FLAGS_H_
