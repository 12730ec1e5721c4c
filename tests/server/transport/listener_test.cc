// Accepting connections: how many, what happens when descriptors run out, and
// how the server knows that its own listener is alive.
#include "server/transport/listener.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "esper/v1/policy_inference.grpc.pb.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "gtest/gtest.h"
#include "server/transport/connection_limit.h"
#include "server/transport/endpoint.h"
#include "server/transport/health_service.h"
#include "server/transport/self_dial.h"
#include "tests/server/server_process.h"
#include "tests/server/service_fixture.h"
#include "tests/testing/status_matchers.h"

namespace esper::testing {
namespace {

using server::ConnectionLimit;
using server::Endpoint;
using server::EndpointOptions;
using server::HealthService;
using server::Listener;
using server::SelfDial;

// A TCP connection to 127.0.0.1 that says nothing.
class IdleConnection {
 public:
  explicit IdleConnection(int port)
      : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in name = {};
    name.sin_family = AF_INET;
    name.sin_port = htons(port);
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ =
        connect(socket_, reinterpret_cast<sockaddr*>(&name), sizeof(name)) == 0;
  }
  ~IdleConnection() { Close(); }
  void Close() {
    if (socket_ >= 0) close(socket_);
    socket_ = -1;
  }
  bool connected() const { return connected_; }
  // Whether the other side has closed it, within 10 s.
  bool ClosedByPeer() const {
    const timeval limit = {10, 0};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    char byte;
    return recv(socket_, &byte, 1, 0) == 0;
  }

 private:
  int socket_;
  bool connected_ = false;
};

// Keeps accepted connections until told otherwise.
class Connections {
 public:
  Listener::Sink Sink() {
    return [this](int, int connection) {
      absl::MutexLock lock(&mu_);
      open_.push_back(connection);
    };
  }
  // Waits for so many.
  bool Await(size_t count) {
    absl::MutexLock lock(&mu_);
    const auto enough = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return open_.size() >= count;
    };
    return mu_.AwaitWithTimeout(absl::Condition(&enough), absl::Seconds(30));
  }
  void CloseAll() {
    absl::MutexLock lock(&mu_);
    for (const int connection : open_) close(connection);
    open_.clear();
  }
  ~Connections() { CloseAll(); }

 private:
  absl::Mutex mu_;
  std::vector<int> open_ ABSL_GUARDED_BY(mu_);
};

TEST(ListenerTest, ConnectionsOverTheLimitAreClosedAtOnce) {
  ConnectionLimit limit(2);
  Connections accepted;
  auto listener = Listener::Bind("127.0.0.1:0", 0600);
  ASSERT_OK(listener.status());
  (*listener)->Start(&limit, accepted.Sink());
  const int port = (*listener)->port();
  IdleConnection first(port), second(port);
  ASSERT_TRUE(accepted.Await(2));
  EXPECT_EQ(limit.open(), 2);
  IdleConnection third(port);
  EXPECT_TRUE(third.ClosedByPeer());
  EXPECT_EQ(limit.refused(), 1);
  // Whoever took them has closed them: there is room again.
  accepted.CloseAll();
  EXPECT_EQ(limit.open(), 0);
  IdleConnection fourth(port);
  EXPECT_TRUE(accepted.Await(1));
  EXPECT_EQ(limit.open(), 1);
}

TEST(ListenerTest, ADescriptorThatIsUsedAgainIsAnotherConnection) {
  ConnectionLimit limit(4);
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  ASSERT_TRUE(limit.Admit(pair[0]));
  const int number = pair[0];
  close(pair[0]);
  int again[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, again), 0);
  ASSERT_EQ(again[0], number);
  EXPECT_EQ(limit.open(), 0);
  close(pair[1]);
  close(again[0]);
  close(again[1]);
}

TEST(ListenerTest, AnAddressInUseIsNamed) {
  auto first = Listener::Bind("127.0.0.1:0", 0600);
  ASSERT_OK(first.status());
  const std::string address = absl::StrCat("127.0.0.1:", (*first)->port());
  const absl::Status taken = Listener::Bind(address, 0600).status();
  EXPECT_THAT(taken, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_NE(std::string(taken.message()).find(address), std::string::npos);
  EXPECT_NE(std::string(taken.message()).find("in use"), std::string::npos);
  // Free again once its listener has stopped.
  (*first)->Stop();
  EXPECT_OK(Listener::Bind(address, 0600).status());
  EXPECT_THAT(Listener::Bind("192.0.2.1:0", 0600).status(),
              StatusIs(absl::StatusCode::kUnavailable));
}

TEST(SelfDialTest, ADeadListenerIsNoticedAndForgivenWhenItIsBack) {
  HealthService health({{"", [] { return true; }}});
  ConnectionLimit limit(100);
  EndpointOptions where;
  where.addresses = {"127.0.0.1:0"};
  auto endpoint = Endpoint::Start(where, {&health}, &limit);
  ASSERT_OK(endpoint.status());
  where.addresses = {(*endpoint)->self_address()};
  SelfDial::Options options;
  options.interval = absl::Milliseconds(20);
  options.timeout = absl::Milliseconds(500);
  std::atomic<int> changes{0};
  const SelfDial dial(where.addresses[0], grpc::InsecureChannelCredentials(),
                      options, [&changes] { ++changes; });
  const auto becomes = [&dial](bool alive) {
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    while (dial.alive() != alive && absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(10));
    }
    return dial.alive() == alive;
  };
  absl::SleepFor(absl::Milliseconds(300));
  EXPECT_TRUE(dial.alive());
  EXPECT_EQ(changes, 0);
  (*endpoint)->Shutdown(absl::ZeroDuration());
  EXPECT_TRUE(becomes(false));
  endpoint = Endpoint::Start(where, {&health}, &limit);
  ASSERT_OK(endpoint.status());
  EXPECT_TRUE(becomes(true));
  EXPECT_EQ(changes, 2);
}

bool Answers(int port, absl::Duration patience) {
  const auto stub = v1::PolicyInference::NewStub(grpc::CreateChannel(
      absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  context.set_deadline(std::chrono::system_clock::now() +
                       absl::ToChronoMilliseconds(patience));
  v1::GetPolicyResponse response;
  return stub->GetPolicy(&context, v1::GetPolicyRequest(), &response).ok();
}

TEST(ServerProcessTest, SurvivesRunningOutOfDescriptors) {
  // gRPC's own listener would never accept again (grpc/grpc#20418).
  const std::string spec = ::testing::TempDir() + "/small_spec.json";
  std::ofstream(spec) << SmallSpec().ToJson();
  ServerProcess server({"--policy_spec=" + spec, "--address=127.0.0.1:0"},
                       /*with_port_file=*/true, /*max_descriptors=*/64);
  const int port = std::stoi(server.AwaitPort());
  ASSERT_TRUE(Answers(port, absl::Seconds(60)));
  {
    std::vector<std::unique_ptr<IdleConnection>> flood;
    for (int i = 0; i < 200; ++i) {
      flood.push_back(std::make_unique<IdleConnection>(port));
      EXPECT_TRUE(flood.back()->connected());
    }
    absl::SleepFor(absl::Seconds(1));
  }
  EXPECT_TRUE(Answers(port, absl::Seconds(30))) << server.Log();
  EXPECT_NE(server.Log().find("cannot accept connections"), std::string::npos)
      << "the descriptors did not run out";
  server.Signal(SIGTERM);
  EXPECT_EQ(server.AwaitExit(), 0);
}

}  // namespace
}  // namespace esper::testing
