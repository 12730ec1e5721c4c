#include "core/dist/socket_communicator.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "core/dist/frame_io.h"

namespace esper::dist {

SocketCommunicator::SocketCommunicator(const Options& options,
                                       std::vector<int> fds)
    : options_(options), fds_(std::move(fds)) {}

SocketCommunicator::~SocketCommunicator() {
  // Without a shutdown, which would also end the copies that other processes
  // got by a fork.
  for (const int fd : fds_) {
    if (fd >= 0) close(fd);
  }
}

absl::StatusOr<std::string> SocketCommunicator::Broadcast(
    int root, const std::string& bytes) {
  if (root < 0 || root >= size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("A group of ", size(), " has no rank ", root, "."));
  }
  auto parts = Exchange(FrameKind::kBroadcast, root,
                        rank() == root ? bytes : std::string());
  if (!parts.ok()) return parts.status();
  return std::move(parts->front());
}

absl::StatusOr<std::vector<std::string>> SocketCommunicator::AllGather(
    const std::string& bytes) {
  return Exchange(FrameKind::kAllGather, 0, bytes);
}

absl::Status SocketCommunicator::Barrier() {
  return Exchange(FrameKind::kBarrier, 0, "").status();
}

absl::StatusOr<std::vector<std::string>> SocketCommunicator::Exchange(
    FrameKind kind, uint32_t argument, const std::string& bytes) {
  if (!broken_.ok()) return broken_;
  FrameHeader mine;
  mine.kind = kind;
  mine.rank = rank();
  mine.argument = argument;
  mine.sequence = sequence_++;
  mine.length = bytes.size();
  if (mine.length > static_cast<uint64_t>(options_.max_message_bytes)) {
    return Break(absl::InvalidArgumentError(absl::StrCat(
        "Rank ", rank(), " sends ", bytes.size(),
        " bytes; the group's limit is ", options_.max_message_bytes, ".")));
  }
  auto parts =
      rank() == 0 ? ExchangeAsHub(mine, bytes) : ExchangeWithHub(mine, bytes);
  if (!parts.ok()) return Break(parts.status());
  return parts;
}

absl::Status SocketCommunicator::CheckNoneLeft(
    const std::map<int, int>& fds) const {
  std::vector<pollfd> polled;
  for (const auto& [peer, fd] : fds) polled.push_back(pollfd{fd, POLLIN, 0});
  poll(polled.data(), polled.size(), 0);
  size_t i = 0;
  for (const auto& [peer, fd] : fds) {
    if (polled[i++].revents == 0) continue;
    auto frames = ReceiveFrames({{peer, fd}}, options_.max_message_bytes,
                                absl::Now() + options_.timeout * 0.1);
    if (!frames.ok()) return frames.status();
    return absl::DataLossError(
        absl::StrCat("Rank ", peer, " did not wait for its answer."));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> SocketCommunicator::ExchangeAsHub(
    const FrameHeader& mine, const std::string& bytes) {
  const absl::Time start = absl::Now();
  std::map<int, int> fds;
  for (int peer = 1; peer < size(); ++peer) fds[peer] = fds_[peer];
  auto frames = ReceiveFrames(fds, options_.max_message_bytes,
                              start + options_.timeout * 0.75);
  if (!frames.ok()) return frames.status();

  std::vector<std::string> parts(size());
  parts[0] = bytes;
  for (auto& [peer, frame] : *frames) {
    const FrameHeader& theirs = frame.header;
    if (theirs.kind != mine.kind || theirs.argument != mine.argument ||
        theirs.sequence != mine.sequence ||
        theirs.rank != static_cast<uint32_t>(peer)) {
      return absl::FailedPreconditionError(absl::StrCat(
          "Ranks made different calls: rank 0 call ", mine.sequence, ", ",
          FrameKindName(mine.kind), "(", mine.argument, "); rank ", peer,
          " call ", theirs.sequence, ", ", FrameKindName(theirs.kind), "(",
          theirs.argument, ")."));
    }
    parts[peer] = std::move(frame.payload);
  }
  if (absl::Status status = CheckNoneLeft(fds); !status.ok()) return status;
  if (mine.kind == FrameKind::kBroadcast) {
    parts = {std::move(parts[mine.argument])};
  }
  FrameHeader answer = mine;
  const std::string payload = PackTexts(parts);
  answer.length = payload.size();
  for (int peer = 1; peer < size(); ++peer) {
    absl::Status status =
        SendFrame(fds_[peer], answer, payload, start + options_.timeout);
    if (!status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat("Rank ", peer, ": ", status.message()));
    }
  }
  return parts;
}

absl::StatusOr<std::vector<std::string>> SocketCommunicator::ExchangeWithHub(
    const FrameHeader& mine, const std::string& bytes) {
  const absl::Time deadline = absl::Now() + options_.timeout;
  // A hub that gave up has left its reason behind: read it even so.
  const absl::Status sent = SendFrame(fds_[0], mine, bytes, deadline);
  if (absl::IsDeadlineExceeded(sent)) return sent;
  const uint64_t limit =
      (static_cast<uint64_t>(options_.max_message_bytes) + 4) * size() + 4;
  auto frames = ReceiveFrames({{0, fds_[0]}}, limit, deadline);
  if (!frames.ok()) return frames.status();
  const Frame& answer = frames->at(0);
  if (answer.header.kind != mine.kind ||
      answer.header.sequence != mine.sequence) {
    return absl::DataLossError("The hub answered another call.");
  }
  auto parts = UnpackTexts(answer.payload);
  const size_t expected = mine.kind == FrameKind::kBroadcast ? 1 : size();
  if (parts.ok() && parts->size() != expected) {
    return absl::DataLossError("The hub answered for another group.");
  }
  return parts;
}

absl::Status SocketCommunicator::Break(absl::Status why) {
  broken_ = std::move(why);
  const Frame abort = AbortFrame(rank(), sequence_, broken_);
  const absl::Time soon = absl::Now() + options_.timeout * 0.1;
  for (int& fd : fds_) {
    if (fd < 0) continue;
    // Who cannot be told will see the connection close.
    SendFrame(fd, abort.header, abort.payload, soon).IgnoreError();
    shutdown(fd, SHUT_WR);
    close(std::exchange(fd, -1));
  }
  return broken_;
}

}  // namespace esper::dist
