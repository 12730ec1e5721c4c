#ifndef ESPER_CLIENT_RECORDING_RECORDS_H_
#define ESPER_CLIENT_RECORDING_RECORDS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "esper/log/action_log.pb.h"
#include "esper/v1/trajectory.pb.h"

namespace esper::client {

// Reads a recording as the log of a client that played its one episode: it was
// opened, then every step was asked for by itself.
//
// Thread safety: none.
class RecordingRecords {
 public:
  // `recording` must outlive this.
  explicit RecordingRecords(const v1::Recording& recording)
      : recording_(recording) {}

  // The next record; nothing at the end. DATA_LOSS if the recording's tensors
  // are not of its number of steps.
  absl::StatusOr<std::optional<log::ActionLogRecord>> Next();

 private:
  log::ActionLogRecord Opening() const;
  absl::StatusOr<log::ActionLogRecord> Step(int64_t step) const;

  const v1::Recording& recording_;
  int64_t next_ = -1;  // Step; -1: the opening.
};

// The header that a log of it would have.
v1::ResponseHeader HeaderOf(const v1::Recording& recording);

}  // namespace esper::client
#endif  // ESPER_CLIENT_RECORDING_RECORDS_H_
