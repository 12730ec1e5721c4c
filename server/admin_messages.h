#ifndef ESPER_SERVER_ADMIN_MESSAGES_H_
#define ESPER_SERVER_ADMIN_MESSAGES_H_

#include <cstdint>
#include <set>

#include "esper/v1/policy_admin.pb.h"
#include "server/checkpoint_store.h"
#include "server/version_history.h"

// What the server keeps, as PolicyAdmin tells it.
namespace esper::server {

v1::CheckpointSummary EncodeCheckpoint(const CheckpointInfo& info);

// `version` must be one of `state.records`, or it is all that is told.
v1::VersionSummary EncodeVersion(const VersionHistory::State& state,
                                 const std::set<int64_t>& kept,
                                 int64_t version);

}  // namespace esper::server
#endif  // ESPER_SERVER_ADMIN_MESSAGES_H_
