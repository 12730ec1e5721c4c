#ifndef ESPER_SERVER_TRANSPORT_SELF_DIAL_H_
#define ESPER_SERVER_TRANSPORT_SELF_DIAL_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "grpcpp/security/credentials.h"

namespace esper::server {

// Calls the server's own listener again and again, each time over a connection
// of its own, as a client would: a process whose listener is dead looks healthy
// from the inside and on every other port.
//
// Thread safety: any thread may call any method.
class SelfDial {
 public:
  struct Options {
    absl::Duration interval = absl::Seconds(5);
    absl::Duration timeout = absl::Seconds(3);
    int failures = 3;  // In a row, until it counts as dead.
  };
  // `address` is dialled with `credentials`. `changed` is called, on the
  // dialling thread, when `alive` has another answer.
  SelfDial(std::string address,
           std::shared_ptr<grpc::ChannelCredentials> credentials,
           const Options& options, std::function<void()> changed);
  ~SelfDial();

  SelfDial(const SelfDial&) = delete;
  SelfDial& operator=(const SelfDial&) = delete;

  // True until `failures` dials in a row had no answer.
  bool alive() const { return alive_; }

 private:
  void Run();
  // Whether anything answered: a refusal is an answer.
  bool Dial() const;

  const std::string address_;
  const std::shared_ptr<grpc::ChannelCredentials> credentials_;
  const Options options_;
  const std::function<void()> changed_;
  std::atomic<bool> alive_{true};
  absl::Notification stop_;
  std::thread thread_;
};

}  // namespace esper::server
#endif  // ESPER_SERVER_TRANSPORT_SELF_DIAL_H_
