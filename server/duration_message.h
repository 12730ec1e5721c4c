#ifndef ESPER_SERVER_DURATION_MESSAGE_H_
#define ESPER_SERVER_DURATION_MESSAGE_H_

#include <cstdint>

#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"

namespace esper::server {

// Writes a finite duration into a message.
inline void SetDuration(absl::Duration from, google::protobuf::Duration* to) {
  to->set_seconds(absl::IDivDuration(from, absl::Seconds(1), &from));
  to->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(from)));
}

}  // namespace esper::server
#endif  // ESPER_SERVER_DURATION_MESSAGE_H_
