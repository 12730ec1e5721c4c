#include "server/transport/self_dial.h"

#include <chrono>
#include <utility>

#include "absl/time/clock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/create_channel.h"
#include "spdlog/spdlog.h"

namespace esper::server {

SelfDial::SelfDial(std::string address,
                   std::shared_ptr<grpc::ChannelCredentials> credentials,
                   const Options& options, std::function<void()> changed)
    : address_(std::move(address)),
      credentials_(std::move(credentials)),
      options_(options),
      changed_(std::move(changed)),
      thread_([this] { Run(); }) {}

SelfDial::~SelfDial() {
  stop_.Notify();
  thread_.join();
}

bool SelfDial::Dial() const {
  grpc::ChannelArguments arguments;
  // A connection of its own: one that is open already says nothing about
  // accepting.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  const auto stub = grpc::health::v1::Health::NewStub(
      grpc::CreateCustomChannel(address_, credentials_, arguments));
  grpc::ClientContext context;
  context.set_wait_for_ready(false);
  context.set_deadline(std::chrono::system_clock::now() +
                       absl::ToChronoNanoseconds(options_.timeout));
  grpc::health::v1::HealthCheckResponse response;
  const grpc::Status status = stub->Check(&context, {}, &response);
  return status.error_code() != grpc::StatusCode::UNAVAILABLE &&
         status.error_code() != grpc::StatusCode::DEADLINE_EXCEEDED;
}

void SelfDial::Run() {
  int failures = 0;
  while (!stop_.WaitForNotificationWithTimeout(options_.interval)) {
    failures = Dial() ? 0 : failures + 1;
    const bool alive = failures < options_.failures;
    if (alive == alive_) continue;
    if (alive) {
      spdlog::info("{} answers this process again", address_);
    } else {
      spdlog::error("{} did not answer this process {} times in a row",
                    address_, failures);
    }
    alive_ = alive;
    changed_();
  }
}

}  // namespace esper::server
