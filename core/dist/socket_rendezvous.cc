// How the ranks of a SocketCommunicator find each other.

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "core/dist/frame_io.h"
#include "core/dist/socket_communicator.h"

namespace esper::dist {
namespace {

using Options = SocketCommunicator::Options;

// Owns descriptors until they are handed on.
class Descriptors {
 public:
  explicit Descriptors(int count) : fds_(count, -1) {}
  ~Descriptors() {
    for (const int fd : fds_) {
      if (fd >= 0) close(fd);
    }
  }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;

  int& operator[](int i) { return fds_[i]; }
  std::vector<int> Release() { return std::exchange(fds_, {}); }

 private:
  std::vector<int> fds_;
};

absl::Status SystemError(const std::string& what) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(errno)));
}

absl::Status CheckOptions(const Options& options) {
  if (options.size < 1 || options.size > 1024 || options.rank < 0 ||
      options.rank >= options.size) {
    return absl::InvalidArgumentError(
        absl::StrCat("A group has 1 to 1024 ranks, counted from 0; got rank ",
                     options.rank, " of ", options.size, "."));
  }
  if (options.timeout <= absl::ZeroDuration() ||
      options.max_message_bytes <= 0) {
    return absl::InvalidArgumentError(
        "A group needs a timeout and a message limit above 0.");
  }
  return absl::OkStatus();
}

FrameHeader Hello(const Options& options) {
  FrameHeader hello;
  hello.kind = FrameKind::kHello;
  hello.rank = options.rank;
  hello.argument = options.size;
  return hello;
}

absl::Status Await(int listener, const Options& options, absl::Time deadline,
                   Descriptors& fds) {
  for (int joined = 1; joined < options.size; ++joined) {
    const int64_t left_ms = absl::ToInt64Milliseconds(deadline - absl::Now());
    pollfd polled{listener, POLLIN, 0};
    const int ready =
        left_ms > 0 ? poll(&polled, 1, static_cast<int>(left_ms)) : 0;
    if (ready < 0 && errno != EINTR) return SystemError("poll");
    if (ready <= 0) {
      if (absl::Now() < deadline) {
        --joined;
        continue;
      }
      return absl::DeadlineExceededError(
          absl::StrCat("Only ", joined, " of ", options.size,
                       " ranks came to the group in time."));
    }
    Descriptors accepted(1);
    accepted[0] = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (accepted[0] < 0) return SystemError("accept");
    if (absl::Status s = MakeNonBlocking(accepted[0]); !s.ok()) return s;
    auto frames = ReceiveFrames({{joined, accepted[0]}}, 0, deadline);
    if (!frames.ok()) return frames.status();
    const FrameHeader& hello = frames->at(joined).header;
    if (hello.kind != FrameKind::kHello ||
        hello.argument != static_cast<uint32_t>(options.size) ||
        hello.rank < 1 || hello.rank >= static_cast<uint32_t>(options.size) ||
        fds[hello.rank] >= 0) {
      return absl::FailedPreconditionError(absl::StrCat(
          "Rank ", hello.rank, " of ", hello.argument,
          " does not fit into a group of ", options.size, ", or came twice."));
    }
    fds[hello.rank] = accepted.Release()[0];
  }
  return absl::OkStatus();
}

absl::StatusOr<sockaddr_un> AddressOf(const std::string& path) {
  sockaddr_un address;
  std::memset(&address, 0, sizeof(address));
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "A Unix socket needs a path of 1 to ", sizeof(address.sun_path) - 1,
        " bytes, got ", path.size(), "."));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

absl::Status Serve(const std::string& path, const sockaddr_un& address,
                   const Options& options, absl::Time deadline,
                   Descriptors& fds) {
  Descriptors listener(1);
  listener[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener[0] < 0) return SystemError("socket");
  if (bind(listener[0], reinterpret_cast<const sockaddr*>(&address),
           sizeof(address)) != 0) {
    if (errno == EADDRINUSE) {
      return absl::AlreadyExistsError(
          absl::StrCat(path, " exists; a group needs a path of its own."));
    }
    return SystemError(absl::StrCat("bind ", path));
  }
  absl::Status status = absl::OkStatus();
  if (listen(listener[0], options.size) != 0) {
    status = SystemError(absl::StrCat("listen ", path));
  } else {
    status = Await(listener[0], options, deadline, fds);
  }
  unlink(path.c_str());  // Nobody else is expected.
  return status;
}

absl::StatusOr<int> Dial(const std::string& path, const sockaddr_un& address,
                         const Options& options, absl::Time deadline) {
  for (;;) {
    Descriptors fd(1);
    fd[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd[0] < 0) return SystemError("socket");
    if (connect(fd[0], reinterpret_cast<const sockaddr*>(&address),
                sizeof(address)) == 0) {
      if (absl::Status s = MakeNonBlocking(fd[0]); !s.ok()) return s;
      absl::Status sent = SendFrame(fd[0], Hello(options), "", deadline);
      if (!sent.ok()) return sent;
      return fd.Release()[0];
    }
    // The hub may not be there yet.
    if (errno != ENOENT && errno != ECONNREFUSED && errno != EAGAIN &&
        errno != EINTR) {
      return SystemError(absl::StrCat("connect ", path));
    }
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("Rank 0 did not open ", path, " in time."));
    }
    absl::SleepFor(absl::Milliseconds(5));
  }
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<SocketCommunicator>>>
SocketCommunicator::CreatePairs(const Options& options) {
  Options checked = options;
  checked.rank = 0;
  if (absl::Status s = CheckOptions(checked); !s.ok()) return s;
  Descriptors hub(options.size), others(options.size);
  for (int rank = 1; rank < options.size; ++rank) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
      return SystemError("socketpair");
    }
    hub[rank] = pair[0];
    others[rank] = pair[1];
    for (const int fd : pair) {
      if (absl::Status s = MakeNonBlocking(fd); !s.ok()) return s;
    }
  }
  std::vector<std::unique_ptr<SocketCommunicator>> group;
  const std::vector<int> other_fds = others.Release();
  for (int rank = 0; rank < options.size; ++rank) {
    checked.rank = rank;
    group.emplace_back(new SocketCommunicator(
        checked,
        rank == 0 ? hub.Release() : std::vector<int>{other_fds[rank]}));
  }
  return group;
}

absl::StatusOr<std::unique_ptr<SocketCommunicator>> SocketCommunicator::Join(
    const std::string& path, const Options& options) {
  if (absl::Status s = CheckOptions(options); !s.ok()) return s;
  const auto address = AddressOf(path);
  if (!address.ok()) return address.status();
  const absl::Time deadline = absl::Now() + options.timeout;
  Descriptors fds(options.rank == 0 ? options.size : 1);
  if (options.rank == 0) {
    absl::Status s = Serve(path, *address, options, deadline, fds);
    if (!s.ok()) return s;
  } else {
    auto fd = Dial(path, *address, options, deadline);
    if (!fd.ok()) return fd.status();
    fds[0] = *fd;
  }
  std::unique_ptr<SocketCommunicator> joined(
      new SocketCommunicator(options, fds.Release()));
  // Whoever was turned away, or waits for somebody who was, learns it here.
  if (absl::Status s = joined->Barrier(); !s.ok()) return s;
  return joined;
}

}  // namespace esper::dist
