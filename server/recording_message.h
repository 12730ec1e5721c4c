#ifndef ESPER_SERVER_RECORDING_MESSAGE_H_
#define ESPER_SERVER_RECORDING_MESSAGE_H_

#include <string>

#include "esper/v1/trajectory.pb.h"
#include "server/recording.h"

// Recordings as messages: the same as their environment would have uploaded.
namespace esper::server {

// What is known of a recording that ended like this.
v1::RecordingInfo InfoOf(const Recording& recording, const RecordingEnd& end,
                         v1::InferencePrecision precision);

// Its steps, of which there is at least one.
v1::Trajectory TrajectoryOf(const Recording& recording, const RecordingEnd& end,
                            const std::string& spec_digest);

// "expired": for logs and status.
std::string CauseName(v1::IncompleteCause cause);

}  // namespace esper::server
#endif  // ESPER_SERVER_RECORDING_MESSAGE_H_
