#ifndef ESPER_CLIENT_TRAINER_MINIBATCHES_H_
#define ESPER_CLIENT_TRAINER_MINIBATCHES_H_

#include <cstdint>
#include <vector>

namespace esper::client {

// Where in a run a pass over the episodes is.
struct PassKey {
  uint64_t seed = 0;    // Of the run.
  uint64_t update = 0;  // Policy version that it begins with.
  uint64_t pass = 0;
};

// Divides rows 0..rows-1 at random into `parts` (>= 1; at most as many as there
// are rows are made), each in ascending order, their sizes differing by at most
// one. Every row is in exactly one part. A function of its arguments, so that a
// pass can be repeated; thread-safe.
std::vector<std::vector<int>> SplitRows(int rows, int parts,
                                        const PassKey& key);

}  // namespace esper::client
#endif  // ESPER_CLIENT_TRAINER_MINIBATCHES_H_
