// Where the server listens: checks of addresses, and its program with several.
#include "server/listen_address.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "core/policy/policy_spec.h"
#include "esper/v1/policy_inference.grpc.pb.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "tests/server/server_process.h"
#include "tests/testing/status_matchers.h"

namespace esper::testing {
namespace {

using server::CheckListenAddress;
using server::CheckListenAddresses;
using ::testing::HasSubstr;

class ListenAddressTest : public ::testing::Test {
 protected:
  ListenAddressTest() {
    // The folder of the test may be deeper than a socket's path may be long.
    char folder[] = "/tmp/esper-XXXXXX";
    EXPECT_NE(mkdtemp(folder), nullptr);
    folder_ = folder;
    socket_ = folder_ + "/socket";
  }
  ~ListenAddressTest() override {
    for (const char* name : {"/socket", "/other", "/spec.json"}) {
      unlink((folder_ + name).c_str());
    }
    rmdir(folder_.c_str());
  }

  // A listening socket at `socket_`; closing it leaves the file behind.
  int Listen() const {
    sockaddr_un name = {};
    name.sun_family = AF_UNIX;
    std::strcpy(name.sun_path, socket_.c_str());
    const int descriptor = socket(AF_UNIX, SOCK_STREAM, 0);
    EXPECT_EQ(
        bind(descriptor, reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
    EXPECT_EQ(listen(descriptor, 1), 0);
    return descriptor;
  }
  int ModeOf(const std::string& path) const {
    struct stat entry = {};
    EXPECT_EQ(stat(path.c_str(), &entry), 0);
    return entry.st_mode & 0777;
  }
  std::vector<std::string> Flags(const std::vector<std::string>& more) const {
    policy::NetworkGrowingOptions options;
    options.feature_dim = 32;
    options.hidden_dim = 32;
    const std::string spec = folder_ + "/spec.json";
    std::ofstream(spec) << policy::PolicySpec::NetworkGrowing(options).ToJson();
    std::vector<std::string> flags = {"--policy_spec=" + spec};
    flags.insert(flags.end(), more.begin(), more.end());
    return flags;
  }
  static bool Answers(const std::string& address) {
    const auto stub = v1::PolicyInference::NewStub(
        grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::seconds(20));
    v1::GetPolicyResponse response;
    return stub->GetPolicy(&context, v1::GetPolicyRequest(), &response).ok();
  }

  std::string folder_;
  std::string socket_;
};

TEST_F(ListenAddressTest, ASocketThatIsListenedOnIsTaken) {
  const int listener = Listen();
  const absl::Status taken = CheckListenAddress("unix:" + socket_, false);
  EXPECT_THAT(taken, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(taken.message(), HasSubstr("Another process listens"));
  close(listener);
  // What is left behind is no obstacle.
  EXPECT_EQ(access(socket_.c_str(), F_OK), 0);
  EXPECT_OK(CheckListenAddress("unix:" + socket_, false));
}

TEST_F(ListenAddressTest, AFileOrAMissingFolderIsAClearError) {
  std::ofstream(socket_) << "x";
  const absl::Status file = CheckListenAddress("unix:" + socket_, false);
  EXPECT_THAT(file, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(file.message(), HasSubstr("no socket"));
  const absl::Status folder =
      CheckListenAddress("unix:" + folder_ + "/missing/socket", false);
  EXPECT_THAT(folder, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(folder.message(), HasSubstr("no folder"));
}

TEST_F(ListenAddressTest, EveryAddressIsCheckedAndComesOnce) {
  EXPECT_OK(CheckListenAddresses({}, false));
  EXPECT_OK(CheckListenAddresses(
      {"127.0.0.1:0", "127.0.0.1:0", "unix:" + socket_}, false));
  EXPECT_THAT(CheckListenAddresses({"127.0.0.1:0", "0.0.0.0:0"}, false),
              StatusIs(absl::StatusCode::kPermissionDenied));
  EXPECT_THAT(
      CheckListenAddresses({"unix:" + socket_, "unix:" + socket_}, false),
      StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(ListenAddressTest, PermissionsAreOctalDigits) {
  EXPECT_EQ(server::ParseSocketMode("0660").value(), 0660);
  EXPECT_EQ(server::ParseSocketMode("600").value(), 0600);
  for (const char* text : {"", "rw", "0800", "1777", "-1", "0600 "}) {
    EXPECT_THAT(server::ParseSocketMode(text),
                StatusIs(absl::StatusCode::kInvalidArgument))
        << text;
  }
}

TEST_F(ListenAddressTest, TheProgramListensOnSeveralAddresses) {
  close(Listen());  // Left behind by another process.
  const std::string other = folder_ + "/other";
  ServerProcess server(
      Flags({"--address=127.0.0.1:0",
             absl::StrCat("--listen=unix:", socket_, ",unix:", other)}));
  const std::string port = server.AwaitPort();
  ASSERT_FALSE(port.empty());
  EXPECT_TRUE(Answers("127.0.0.1:" + port));
  EXPECT_TRUE(Answers("unix:" + socket_));
  EXPECT_TRUE(Answers("unix:" + other));
  EXPECT_EQ(ModeOf(socket_), 0600);
  server.Signal(SIGTERM);
  EXPECT_EQ(server.AwaitExit(absl::Seconds(60)), 0) << server.Log();
}

TEST_F(ListenAddressTest, TheProgramGivesSocketsTheModeThatIsAskedFor) {
  ServerProcess server(
      Flags({"--address=unix:" + socket_, "--socket_mode=0660"}));
  EXPECT_EQ(server.AwaitPort(), "unix:" + socket_);
  EXPECT_EQ(ModeOf(socket_), 0660);
}

TEST_F(ListenAddressTest, TheProgramRefusesBudgetsAndAddressesOutOfRange) {
  const struct {
    const char* flag;
    const char* words;
  } cases[] = {
      {"--max_message_mb=0", "max_message_mb"},
      {"--max_message_mb=2048", "max_message_mb"},
      {"--max_episodes=0", "max_episodes"},
      {"--max_episodes=2000000", "max_episodes"},
      {"--max_queue=0", "max_queue"},
      {"--max_queue=-5", "max_queue"},
      {"--socket_mode=rwx", "socket_mode"},
      {"--listen=nowhere", "nowhere"},
      {"--listen=0.0.0.0:0", "--insecure"},
  };
  std::vector<std::unique_ptr<ServerProcess>> servers;
  for (const auto& each : cases) {
    servers.push_back(std::make_unique<ServerProcess>(
        Flags({"--address=127.0.0.1:0", each.flag})));
  }
  for (size_t i = 0; i < servers.size(); ++i) {
    EXPECT_EQ(servers[i]->AwaitExit(absl::Seconds(90)), 1) << servers[i]->Log();
    EXPECT_THAT(servers[i]->Log(), HasSubstr(cases[i].words));
  }
}

}  // namespace
}  // namespace esper::testing
