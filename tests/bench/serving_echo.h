#ifndef ESPER_TESTS_BENCH_SERVING_ECHO_H_
#define ESPER_TESTS_BENCH_SERVING_ECHO_H_

#include <cstdint>

#include "esper/v1/policy_inference.grpc.pb.h"
#include "grpcpp/support/byte_buffer.h"

namespace esper::bench {

// The floor of a call: takes the bytes of a GetAction without looking at them,
// and answers with as many bytes as the real server would. Opens episodes by
// handing out ids.
class EchoService : public v1::PolicyInference::WithRawCallbackMethod_GetAction<
                        v1::PolicyInference::WithCallbackMethod_OpenEpisodes<
                            v1::PolicyInference::Service>> {
 public:
  // rows: of every call.
  explicit EchoService(int64_t rows);

  grpc::ServerUnaryReactor* OpenEpisodes(
      grpc::CallbackServerContext* context,
      const v1::OpenEpisodesRequest* request,
      v1::OpenEpisodesResponse* response) override;
  grpc::ServerUnaryReactor* GetAction(grpc::CallbackServerContext* context,
                                      const grpc::ByteBuffer* request,
                                      grpc::ByteBuffer* response) override;

 private:
  grpc::ByteBuffer answer_;
};

}  // namespace esper::bench
#endif  // ESPER_TESTS_BENCH_SERVING_ECHO_H_
