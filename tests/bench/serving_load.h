#ifndef ESPER_TESTS_BENCH_SERVING_LOAD_H_
#define ESPER_TESTS_BENCH_SERVING_LOAD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

// A load generator for servers of esper.v1.PolicyInference.
namespace esper::bench {

struct LoadOptions {
  std::string address;       // 127.0.0.1:PORT or unix:/path.
  int64_t environments = 1;  // Episodes, a multiple of `rows`.
  int64_t rows = 1;          // Of one call.
  int connections = 1;
  // Calls in flight at a time; 0: every environment always waits for one.
  int64_t in_flight = 0;
  // Poisson arrivals of calls per second, whose latency counts from when they
  // were due; 0: the next call follows the answer.
  double calls_per_second = 0;
  double warmup = 0.5;  // Seconds.
  double seconds = 2;
  int server_pid =
      0;  // Process whose CPU time and memory are reported; 0: none.
  std::string key = "load";  // Prefix of the environment keys.
  uint64_t incarnation = 1;
};

struct Percentiles {
  double p50_us = 0;
  double p99_us = 0;
};
// Of latencies in seconds; at least one.
Percentiles PercentilesOf(std::vector<double> latencies);

struct LoadReport {
  double actions_per_second = 0;
  double calls_per_second = 0;
  Percentiles latency;
  // CPU seconds for 1,000 actions.
  double client_cpu = 0;
  double server_cpu = 0;
  int64_t server_bytes = 0;  // Resident memory at the end.

  std::string ToJson() const;
};

// Opens the episodes, steps them, and closes nothing: their environment keys
// are those of the next run's, which comes under a higher incarnation. Every
// failed call fails the run.
absl::StatusOr<LoadReport> RunLoad(const LoadOptions& options);

}  // namespace esper::bench
#endif  // ESPER_TESTS_BENCH_SERVING_LOAD_H_
