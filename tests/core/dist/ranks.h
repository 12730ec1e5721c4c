#ifndef ESPER_TESTS_CORE_DIST_RANKS_H_
#define ESPER_TESTS_CORE_DIST_RANKS_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "core/dist/communicator.h"

// Runs the ranks of a group as processes of their own, forked from the test.
// The test itself must not have started threads, so it leaves tensors to them.
namespace esper::testing {

struct RankResult {
  int exit_status = -1;  // 0 if it ended by itself; of `_exit` or a signal.
  std::string said;      // What its body returned.
  absl::Duration took;   // From the start of the group.
};

// `body` runs once in each process; what it returns is its result. Processes
// that are still there after a minute are killed.
std::vector<RankResult> RunProcesses(
    int count, const std::function<std::string(int rank)>& body);

// The same for ranks that are connected by socket pairs.
std::vector<RankResult> RunRanks(
    int size, absl::Duration timeout,
    const std::function<std::string(dist::Communicator& group)>& body);

}  // namespace esper::testing
#endif  // ESPER_TESTS_CORE_DIST_RANKS_H_
