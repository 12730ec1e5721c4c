#ifndef ESPER_TESTS_BENCH_SERVING_FORWARD_H_
#define ESPER_TESTS_BENCH_SERVING_FORWARD_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "tests/bench/serving_load.h"

namespace esper::bench {

// The ceiling of a server: the published policy in this process on one thread,
// with masks, sampling, and state gathered from and scattered to a pool of
// `episodes` rows, `rows` at a time. It idles `pause` seconds before each pass,
// as a server does that waits for its one environment: by then the weights have
// left the nearest caches.
absl::StatusOr<LoadReport> RunForward(int64_t episodes, int64_t rows,
                                      double seconds, double pause);

}  // namespace esper::bench
#endif  // ESPER_TESTS_BENCH_SERVING_FORWARD_H_
