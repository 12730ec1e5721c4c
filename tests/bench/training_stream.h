#ifndef ESPER_TESTS_BENCH_TRAINING_STREAM_H_
#define ESPER_TESTS_BENCH_TRAINING_STREAM_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "esper/v1/policy_training.grpc.pb.h"
#include "grpcpp/channel.h"
#include "tests/bench/training_loss.h"

namespace esper::bench {

// What a client of EvaluateActions does: sends a batch, differentiates its own
// loss of what comes back, sends the cotangents. The server has `BenchSpec`.
class StreamTraining {
 public:
  static absl::StatusOr<std::unique_ptr<StreamTraining>> Connect(
      const std::string& address, int64_t rows, int64_t steps);
  // The same batch over a connection of its own to `address`.
  std::unique_ptr<StreamTraining> Again(const std::string& address) const;
  ~StreamTraining();

  // Evaluate, loss, backward.
  absl::Status Step();
  // Drops what the server has accumulated, by taking the lease again.
  absl::Status Clear();
  // Evaluates and keeps the graph open.
  absl::Status Evaluate();
  // Gives the call up in the middle.
  void Abandon();

  // Opens another stream for the same batch.
  void OpenStream();

 private:
  using Stream = grpc::ClientReaderWriter<v1::EvaluateActionsRequest,
                                          v1::EvaluateActionsResponse>;

  StreamTraining() = default;
  // Sends `request_` and reads `response_`.
  absl::Status Exchange(const v1::EvaluateActionsRequest& request);

  std::unique_ptr<v1::PolicyTraining::Stub> stub_;
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<Stream> stream_;
  v1::EvaluateActionsRequest request_;
  v1::EvaluateActionsRequest cotangents_;
  v1::EvaluateActionsResponse response_;
  LossTargets targets_;
  int64_t token_ = 0;
  int64_t sequence_ = 0;
  int64_t id_ = 0;
};

struct AbandonReport {
  int64_t start_bytes = 0;  // Resident memory of the server, warmed up...
  int64_t end_bytes = 0;    // ... and after the streams.
  int64_t streams = 0;
  int64_t broken = 0;  // Of these, ended by a broken connection.
  int64_t open_evaluations = 0;
  int64_t graph_bytes = 0;
  std::string ToJson() const;
};

// Abandons `warmup`, then `streams` EvaluateActions streams of the server on
// `port`, process `pid`, in the middle: by turns before the answer, with an
// open graph, and by a reset connection. Then waits until the server holds no
// graph.
absl::StatusOr<AbandonReport> AbandonStreams(int port, int pid, int64_t warmup,
                                             int64_t streams);

// Opens `streams` streams with an open graph each, says so on standard output,
// and sleeps until it is killed.
absl::Status HoldGraphs(const std::string& address, int streams);

}  // namespace esper::bench
#endif  // ESPER_TESTS_BENCH_TRAINING_STREAM_H_
