#ifndef ESPER_CORE_DIST_FRAME_IO_H_
#define ESPER_CORE_DIST_FRAME_IO_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/dist/frame.h"

// Frames over non-blocking stream sockets, each step with a deadline.
namespace esper::dist {

// Makes reads and writes of `fd` return instead of wait. INTERNAL if it cannot.
absl::Status MakeNonBlocking(int fd);

// Sends a whole frame. UNAVAILABLE if the peer has closed, DEADLINE_EXCEEDED if
// it does not read. Raises no signal.
absl::Status SendFrame(int fd, const FrameHeader& header,
                       const std::string& payload, absl::Time deadline);

// Reads one frame from each socket. `fds`: peer's rank -> socket. Ends with
// the first trouble, however many frames are still out: UNAVAILABLE naming a
// peer that closed; the error that an Abort frame brings; DEADLINE_EXCEEDED
// naming the peers that are late; DATA_LOSS.
absl::StatusOr<std::map<int, Frame>> ReceiveFrames(
    const std::map<int, int>& fds, uint64_t max_length, absl::Time deadline);

// An Abort frame that carries `why`, and what one says.
Frame AbortFrame(int rank, uint64_t sequence, const absl::Status& why);
absl::Status AbortReason(const Frame& frame);

}  // namespace esper::dist
#endif  // ESPER_CORE_DIST_FRAME_IO_H_
