// The server's program from outside: flags, ports, signals.
#include "tests/server/server_process.h"

#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/policy/policy_spec.h"
#include "esper/v1/policy_inference.grpc.pb.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "proto/codec/error_detail.h"

namespace esper::testing {
namespace {

using ::testing::HasSubstr;

class ServerProcessTest : public ::testing::Test {
 protected:
  ServerProcessTest()
      : directory_(absl::StrCat(::testing::TempDir(), "/p", getpid())),
        spec_path_(directory_ + ".spec.json") {
    policy::NetworkGrowingOptions options;
    options.feature_dim = 32;
    options.hidden_dim = 32;
    std::ofstream(spec_path_)
        << policy::PolicySpec::NetworkGrowing(options).ToJson();
  }
  ~ServerProcessTest() override { unlink(spec_path_.c_str()); }

  // Flags of a small server on a free port, and more.
  std::vector<std::string> Small(std::vector<std::string> more = {}) const {
    more.insert(more.begin(),
                {"--address=127.0.0.1:0", "--policy_spec=" + spec_path_});
    return more;
  }

  static std::unique_ptr<v1::PolicyInference::Stub> Connect(
      const std::string& address) {
    return v1::PolicyInference::NewStub(
        grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  }
  static grpc::Status GetPolicy(v1::PolicyInference::Stub* stub) {
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::seconds(20));
    v1::GetPolicyResponse response;
    return stub->GetPolicy(&context, v1::GetPolicyRequest(), &response);
  }

  // Expects that the program refuses to start, saying `words`.
  void ExpectRefused(const std::vector<std::string>& flags,
                     const std::string& words) {
    ServerProcess server(flags);
    EXPECT_EQ(server.AwaitExit(), 1) << server.Log();
    EXPECT_THAT(server.Log(), HasSubstr(words));
  }

  const std::string directory_;
  const std::string spec_path_;
};

TEST_F(ServerProcessTest, RefusesFlagsThatItCannotHonour) {
  const struct {
    std::vector<std::string> flags;
    std::string words;
  } cases[] = {
      {Small({"--adress=1"}), "adress"},
      {Small({"stray"}), "stray"},
      {Small({"--workers=many"}), "workers"},
      {Small({"--workers=0"}), "workers"},
      {Small({"--episode_lease=-1s"}), "episode_lease"},
      {Small({"--max_stream_requests=0"}), "max_stream_requests"},
      {Small({"--state_key_file=/no/such/key"}), "/no/such/key"},
      {Small({"--state_key_file=/dev/null"}), "at least 16"},
      {Small({"--device=cuda:0"}), "without CUDA"},
      {Small({"--device=tpu"}), "tpu"},
      {Small({"--log_level=loud"}), "loud"},
      {Small({"--log_format=xml"}), "xml"},
      {{"--address=nowhere"}, "nowhere"},
      {{"--address=0.0.0.0:0"}, "--insecure"},
      {{"--address=unix:/tmp/" + std::string(120, 'x')}, "longer than"},
      {{"--policy_spec=/no/such/file.json"}, "/no/such/file.json"},
      {Small({"--checkpoint_dir=" + directory_, "--restore=missing"}),
       "missing"},
  };
  // All at once: most of their time is the loading of libraries.
  std::vector<std::unique_ptr<ServerProcess>> servers;
  for (const auto& each : cases) {
    servers.push_back(std::make_unique<ServerProcess>(each.flags));
  }
  for (size_t i = 0; i < servers.size(); ++i) {
    EXPECT_EQ(servers[i]->AwaitExit(), 1) << servers[i]->Log();
    EXPECT_THAT(servers[i]->Log(), HasSubstr(cases[i].words));
  }
}

TEST_F(ServerProcessTest, RefusesASpecificationThatIsNone) {
  std::ofstream(spec_path_, std::ios::trunc) << "{\"name\": \"x\"}";
  ExpectRefused(Small(), "format_version");
}

TEST_F(ServerProcessTest, AnOccupiedPortIsAClearError) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in name = {};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&name), sizeof(name)),
            0);
  ASSERT_EQ(listen(listener, 1), 0);
  socklen_t size = sizeof(name);
  getsockname(listener, reinterpret_cast<sockaddr*>(&name), &size);
  const std::string address = absl::StrCat("127.0.0.1:", ntohs(name.sin_port));
  ExpectRefused({"--policy_spec=" + spec_path_, "--address=" + address},
                "Cannot listen on " + address);
  close(listener);

  ServerProcess first(Small());
  const std::string taken = "127.0.0.1:" + first.AwaitPort();
  ExpectRefused({"--policy_spec=" + spec_path_, "--address=" + taken},
                "Cannot listen on " + taken);
}

TEST_F(ServerProcessTest, ListensOnAUnixSocketThatIsItsOwn) {
  // The folder of the test may be deeper than a socket's path may be long.
  char folder[] = "/tmp/esper-XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  const std::string address = absl::StrCat("unix:", folder, "/socket");
  ServerProcess server({"--policy_spec=" + spec_path_, "--address=" + address});
  EXPECT_EQ(server.AwaitPort(), address);
  EXPECT_TRUE(GetPolicy(Connect(address).get()).ok());
  ExpectRefused({"--policy_spec=" + spec_path_, "--address=" + address},
                "Another process listens");
  EXPECT_TRUE(GetPolicy(Connect(address).get()).ok());
  server.Signal(SIGTERM);
  EXPECT_EQ(server.AwaitExit(), 0) << server.Log();
  unlink(absl::StrCat(folder, "/socket").c_str());
  rmdir(folder);
}

TEST_F(ServerProcessTest, SaysOnceThatNobodyIsAuthenticated) {
  ServerProcess server(Small({"--log_format=json", "--reflection"}));
  const std::string address = "localhost:" + server.AwaitPort();
  EXPECT_TRUE(GetPolicy(Connect(address).get()).ok());
  server.Signal(SIGINT);
  EXPECT_EQ(server.AwaitExit(), 0) << server.Log();
  std::istringstream lines(server.Log());
  std::string line, last;
  int warnings = 0;
  while (std::getline(lines, line)) {
    const auto parsed = nlohmann::json::parse(line, nullptr, false);
    ASSERT_FALSE(parsed.is_discarded()) << line;
    last = parsed.at("message");
    warnings += last == "no credentials: every local caller has every role";
  }
  EXPECT_EQ(warnings, 1);
  EXPECT_EQ(last, "clean exit");
}

TEST_F(ServerProcessTest, StopsCleanlyUnderLoad) {
  ServerProcess server(Small());
  const std::string address = "127.0.0.1:" + server.AwaitPort();
  std::atomic<int> served{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&, i] {
      auto stub = Connect(address);
      ASSERT_TRUE(GetPolicy(stub.get()).ok());
      for (int episode = 0; !stop; ++episode) {
        grpc::ClientContext context;
        v1::OpenEpisodesRequest open;
        v1::OpenEpisodesResponse opened;
        open.add_episodes()->set_environment_key(absl::StrCat(i, "/", episode));
        open.mutable_episodes(0)->set_incarnation(1);
        grpc::Status status = stub->OpenEpisodes(&context, open, &opened);
        v1::GetActionRequest request;
        request.mutable_observations()->set_dtype(v1::DATA_TYPE_FLOAT32);
        request.mutable_observations()->add_shape(1);
        request.mutable_observations()->add_shape(116);
        request.mutable_observations()->set_data(std::string(464, '\0'));
        request.mutable_categorical()->set_dtype(v1::DATA_TYPE_INT8);
        request.mutable_categorical()->add_shape(1);
        request.mutable_categorical()->add_shape(3);
        request.mutable_categorical()->set_data(std::string(3, '\xff'));
        request.mutable_action_masks()->set_dtype(v1::DATA_TYPE_UINT8);
        request.mutable_action_masks()->add_shape(1);
        request.mutable_action_masks()->add_shape(7);
        request.mutable_action_masks()->set_data(std::string(7, '\xff'));
        for (int step = 0; step < 20 && status.ok(); ++step) {
          v1::StepRow* row = request.mutable_rows()->empty()
                                 ? request.add_rows()
                                 : request.mutable_rows(0);
          row->set_episode_id(opened.episode_ids(0));
          row->set_incarnation(1);
          row->set_step(step);
          grpc::ClientContext step_context;
          v1::GetActionResponse response;
          status = stub->GetAction(&step_context, request, &response);
          if (status.ok()) ++served;
        }
        if (status.ok()) continue;
        // Refused or disconnected, and both may be tried again elsewhere.
        EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE)
            << status.error_message();
        return;
      }
    });
  }
  while (served < 200) std::this_thread::yield();
  server.Signal(SIGTERM);
  EXPECT_EQ(server.AwaitExit(absl::Seconds(20)), 0) << server.Log();
  EXPECT_THAT(server.Log(), HasSubstr("SIGTERM: draining"));
  EXPECT_THAT(server.Log(), HasSubstr("clean exit"));
  stop = true;
  for (std::thread& client : clients) client.join();
}

}  // namespace
}  // namespace esper::testing
