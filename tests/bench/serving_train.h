#ifndef ESPER_TESTS_BENCH_SERVING_TRAIN_H_
#define ESPER_TESTS_BENCH_SERVING_TRAIN_H_

#include <string>

#include "absl/status/status.h"

namespace esper::bench {

// Keeps the learner of a server with the network-growing policy busy: takes its
// lease, acts a few episodes, and asks for their PPO gradient without a pause,
// `passes` times (0: until the process is killed or a call fails). Never steps,
// so the weights stay as they are.
absl::Status Train(const std::string& address, int passes);

}  // namespace esper::bench
#endif  // ESPER_TESTS_BENCH_SERVING_TRAIN_H_
