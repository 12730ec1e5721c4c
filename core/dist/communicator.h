#ifndef ESPER_CORE_DIST_COMMUNICATOR_H_
#define ESPER_CORE_DIST_COMMUNICATOR_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace esper::dist {

// How the processes of one run talk to each other: a fixed group of ranks
// 0 .. size() - 1 that make the same collective calls in the same order.
//
// Every call involves every rank and returns within the group's timeout. What
// goes wrong on one rank goes wrong on all of them, with the same code and, as
// far as ranks can still be reached, the same words:
//   DEADLINE_EXCEEDED   a rank did not come in time;
//   UNAVAILABLE         a rank is gone (its process ended or closed the group);
//   FAILED_PRECONDITION ranks made different calls;
//   INVALID_ARGUMENT    a root or a message that the group does not take;
//   DATA_LOSS           what arrived is not a message of the group.
// After such an error the group is broken: every later call returns it again.
//
// Thread safety: one thread at a time.
class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Returns `bytes` of rank `root` on every rank; those of others are unused.
  virtual absl::StatusOr<std::string> Broadcast(int root,
                                                const std::string& bytes) = 0;

  // Returns the `bytes` of all ranks, in the order of their ranks. Lengths may
  // differ.
  virtual absl::StatusOr<std::vector<std::string>> AllGather(
      const std::string& bytes) = 0;

  // Returns once every rank has called.
  virtual absl::Status Barrier() = 0;
};

// A group of one.
class LoopbackCommunicator : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  absl::StatusOr<std::string> Broadcast(int root,
                                        const std::string& bytes) override {
    if (root != 0) {
      return absl::InvalidArgumentError("The only rank of the group is 0.");
    }
    return bytes;
  }
  absl::StatusOr<std::vector<std::string>> AllGather(
      const std::string& bytes) override {
    return std::vector<std::string>{bytes};
  }
  absl::Status Barrier() override { return absl::OkStatus(); }
};

}  // namespace esper::dist
#endif  // ESPER_CORE_DIST_COMMUNICATOR_H_
