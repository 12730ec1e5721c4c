#include "core/dist/frame_io.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"

namespace esper::dist {
namespace {

absl::Status SystemError(const char* call) {
  return absl::InternalError(absl::StrCat(call, ": ", std::strerror(errno)));
}

absl::Status Gone(int rank) {
  return absl::UnavailableError(
      absl::StrCat("Rank ", rank, " is gone: it closed its connection."));
}

// Milliseconds until `deadline` for poll, rounded up; 0 once it has passed.
int MillisecondsUntil(absl::Time deadline) {
  const absl::Duration left = deadline - absl::Now();
  if (left <= absl::ZeroDuration()) return 0;
  return static_cast<int>(
      std::min<int64_t>(absl::ToInt64Milliseconds(left) + 1, int64_t{1} << 30));
}

// A frame that is arriving.
struct Incoming {
  std::string header;
  Frame frame;
  bool have_header = false;
  bool complete = false;
};

// Takes what the socket holds, up to the end of one frame.
absl::Status Receive(int fd, int rank, uint64_t max_length,
                     Incoming& incoming) {
  while (!incoming.complete) {
    std::string& buffer =
        incoming.have_header ? incoming.frame.payload : incoming.header;
    const size_t wanted =
        incoming.have_header ? incoming.frame.header.length : kFrameHeaderBytes;
    if (buffer.size() < wanted) {
      char chunk[65536];
      const ssize_t count =
          recv(fd, chunk, std::min(sizeof(chunk), wanted - buffer.size()), 0);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        return absl::OkStatus();
      }
      if (count == 0 || (count < 0 && errno == ECONNRESET)) return Gone(rank);
      if (count < 0) return SystemError("recv");
      buffer.append(chunk, count);
      if (buffer.size() < wanted) continue;
    }
    if (incoming.have_header) {
      incoming.complete = true;
    } else {
      auto header = DecodeFrameHeader(incoming.header.data(), max_length);
      if (!header.ok()) return header.status();
      incoming.frame.header = *header;
      incoming.have_header = true;
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status MakeNonBlocking(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
    return SystemError("fcntl");
  }
  return absl::OkStatus();
}

absl::Status SendFrame(int fd, const FrameHeader& header,
                       const std::string& payload, absl::Time deadline) {
  const std::string bytes = EncodeFrameHeader(header) + payload;
  size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t count =
        send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (count >= 0) {
      sent += count;
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EPIPE || errno == ECONNRESET) {
      return absl::UnavailableError("The other side closed its connection.");
    }
    if (errno != EAGAIN && errno != EWOULDBLOCK) return SystemError("send");
    const int wait_ms = MillisecondsUntil(deadline);
    if (wait_ms == 0) {
      return absl::DeadlineExceededError("The other side does not read.");
    }
    pollfd writable{fd, POLLOUT, 0};
    if (poll(&writable, 1, wait_ms) < 0 && errno != EINTR) {
      return SystemError("poll");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::map<int, Frame>> ReceiveFrames(
    const std::map<int, int>& fds, uint64_t max_length, absl::Time deadline) {
  std::map<int, Incoming> incoming;
  std::vector<int> missing;
  for (const auto& [rank, fd] : fds) missing.push_back(rank);
  while (!missing.empty()) {
    std::vector<pollfd> polled;
    for (const int rank : missing) {
      polled.push_back(pollfd{fds.at(rank), POLLIN, 0});
    }
    const int wait_ms = MillisecondsUntil(deadline);
    const int ready = poll(polled.data(), polled.size(), wait_ms);
    if (ready < 0 && errno != EINTR) return SystemError("poll");
    if (ready == 0 && wait_ms == 0) {
      return absl::DeadlineExceededError(
          absl::StrCat("Waited in vain for rank ", absl::StrJoin(missing, ", "),
                       " of the group."));
    }
    if (ready <= 0) continue;
    std::vector<int> still_missing;
    for (size_t i = 0; i < polled.size(); ++i) {
      const int rank = missing[i];
      Incoming& from = incoming[rank];
      if (polled[i].revents != 0) {
        const absl::Status status =
            Receive(polled[i].fd, rank, max_length, from);
        if (!status.ok()) return status;
      }
      if (from.complete && from.frame.header.kind == FrameKind::kAbort) {
        return AbortReason(from.frame);
      }
      if (!from.complete) still_missing.push_back(rank);
    }
    missing = std::move(still_missing);
  }
  std::map<int, Frame> frames;
  for (auto& [rank, from] : incoming) frames[rank] = std::move(from.frame);
  return frames;
}

Frame AbortFrame(int rank, uint64_t sequence, const absl::Status& why) {
  Frame frame;
  frame.header.kind = FrameKind::kAbort;
  frame.header.rank = rank;
  frame.header.argument = static_cast<uint32_t>(why.code());
  frame.header.sequence = sequence;
  frame.payload = std::string(why.message()).substr(0, kMaxAbortBytes);
  frame.header.length = frame.payload.size();
  return frame;
}

absl::Status AbortReason(const Frame& frame) {
  const auto code = static_cast<absl::StatusCode>(frame.header.argument);
  if (frame.header.argument == 0 || frame.header.argument > 16) {
    return absl::DataLossError("A peer aborted without a reason.");
  }
  return absl::Status(code, frame.payload);
}

}  // namespace esper::dist
