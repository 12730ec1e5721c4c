#ifndef ESPER_SERVER_WAITING_CALL_H_
#define ESPER_SERVER_WAITING_CALL_H_

#include <atomic>
#include <chrono>

#include "absl/status/status.h"
#include "grpcpp/support/server_callback.h"

// What calls have in common that wait for the policy.
namespace esper::server {

// One waiting unary call. Deletes itself once gRPC is done with it.
//
// Thread safety: any thread may ask.
class WaitingReactor : public grpc::ServerUnaryReactor {
 public:
  // Whether the client went away.
  bool cancelled() const { return cancelled_; }

 private:
  void OnCancel() override { cancelled_ = true; }
  void OnDone() override { delete this; }

  std::atomic<bool> cancelled_{false};
};

// Why nobody waits for an answer any more, CANCELLED or DEADLINE_EXCEEDED; OK
// while somebody does.
absl::Status AbandonedBy(bool cancelled,
                         std::chrono::system_clock::time_point deadline);

}  // namespace esper::server
#endif  // ESPER_SERVER_WAITING_CALL_H_
