#ifndef ESPER_PROTO_CODEC_DURATION_H_
#define ESPER_PROTO_CODEC_DURATION_H_

#include <cstdint>

#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"

namespace esper::codec {

// Writes a finite duration into a message.
inline void SetDuration(absl::Duration from, google::protobuf::Duration* to) {
  to->set_seconds(absl::IDivDuration(from, absl::Seconds(1), &from));
  to->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(from)));
}

}  // namespace esper::codec
#endif  // ESPER_PROTO_CODEC_DURATION_H_
