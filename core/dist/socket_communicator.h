#ifndef ESPER_CORE_DIST_SOCKET_COMMUNICATOR_H_
#define ESPER_CORE_DIST_SOCKET_COMMUNICATOR_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/dist/communicator.h"
#include "core/dist/frame.h"

namespace esper::dist {

// A group of processes of one machine over stream sockets: rank 0 is the hub,
// every other rank has one connection to it. For decisions and small messages;
// gradients have engines of their own.
//
// A collective is one round: every rank sends its frame to the hub, which
// compares the calls and answers them all. The hub waits for three quarters of
// the timeout, so that its verdict on a late rank reaches the others before
// they give up themselves. A rank that meets an error tells the hub before it
// closes its connection, and the hub tells the others; a connection that closes
// without a word means that its rank is gone.
class SocketCommunicator : public Communicator {
 public:
  struct Options {
    int rank = 0;
    int size = 1;                                // In [1, 1024].
    absl::Duration timeout = absl::Seconds(30);  // Of one call; > 0.
    int64_t max_message_bytes = 64 << 20;        // Of one rank, > 0.
  };

  // A whole group, connected by socket pairs, for processes that are about to
  // fork: each keeps its own rank and destroys the others'. The ranks of
  // `options` are ignored. INVALID_ARGUMENT for options out of range.
  static absl::StatusOr<std::vector<std::unique_ptr<SocketCommunicator>>>
  CreatePairs(const Options& options);

  // Joins the group that meets at the Unix socket `path`: rank 0 makes it and
  // waits for all, the others connect as soon as it is there. Every rank calls.
  // INVALID_ARGUMENT for options out of range or a path that is too long;
  // ALREADY_EXISTS if `path` is taken; DEADLINE_EXCEEDED if a rank does not
  // come within the timeout; FAILED_PRECONDITION for ranks that do not fit.
  static absl::StatusOr<std::unique_ptr<SocketCommunicator>> Join(
      const std::string& path, const Options& options);

  ~SocketCommunicator() override;

  int rank() const override { return options_.rank; }
  int size() const override { return options_.size; }
  absl::StatusOr<std::string> Broadcast(int root,
                                        const std::string& bytes) override;
  absl::StatusOr<std::vector<std::string>> AllGather(
      const std::string& bytes) override;
  absl::Status Barrier() override;

 private:
  // fds: by rank for the hub (its own entry is -1), else the hub's alone.
  SocketCommunicator(const Options& options, std::vector<int> fds);

  // One round. Returns the parts of all ranks, or of the root alone.
  absl::StatusOr<std::vector<std::string>> Exchange(FrameKind kind,
                                                    uint32_t argument,
                                                    const std::string& bytes);
  absl::StatusOr<std::vector<std::string>> ExchangeAsHub(
      const FrameHeader& mine, const std::string& bytes);
  absl::StatusOr<std::vector<std::string>> ExchangeWithHub(
      const FrameHeader& mine, const std::string& bytes);

  // A peer that gave up after it had sent its part shall spoil the round for
  // all, not for the ranks alone that are answered after it.
  absl::Status CheckNoneLeft(const std::map<int, int>& fds) const;

  // Breaks the group: tells the other side, closes, remembers. Returns `why`.
  absl::Status Break(absl::Status why);

  const Options options_;
  std::vector<int> fds_;
  uint64_t sequence_ = 0;
  absl::Status broken_;
};

}  // namespace esper::dist
#endif  // ESPER_CORE_DIST_SOCKET_COMMUNICATOR_H_
