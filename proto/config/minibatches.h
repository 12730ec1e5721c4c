#ifndef ESPER_PROTO_CONFIG_MINIBATCHES_H_
#define ESPER_PROTO_CONFIG_MINIBATCHES_H_

#include <cstdint>
#include <vector>

namespace esper::config {

// Where in a run a pass over the episodes is.
struct PassKey {
  uint64_t seed = 0;    // Of the run, or of the call of UpdatePolicy.
  uint64_t update = 0;  // Policy version that it begins with.
  uint64_t pass = 0;
};

// Divides rows 0..rows-1 at random into `parts` (>= 1; at most as many as there
// are rows are made), each in ascending order, their sizes differing by at most
// one. Every row is in exactly one part. A function of its arguments, so that a
// pass can be repeated, and that a coordinator's own loop and the server's
// UpdatePolicy divide alike; thread-safe.
std::vector<std::vector<int>> SplitRows(int rows, int parts,
                                        const PassKey& key);

}  // namespace esper::config
#endif  // ESPER_PROTO_CONFIG_MINIBATCHES_H_
