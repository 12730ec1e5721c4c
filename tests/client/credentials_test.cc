// Our own client towards a server with TLS and an access file.
#include "client/credentials.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/policy_client.h"
#include "gtest/gtest.h"
#include "server/server.h"
#include "tests/server/access/certificates.h"
#include "tests/server/service_fixture.h"
#include "tests/testing/status_matchers.h"

namespace esper::testing {
namespace {

using client::Credentials;
using client::PolicyClient;

class CredentialsTest : public ::testing::Test {
 protected:
  CredentialsTest() {
    // The folder of the test may be deeper than a socket's path may be long.
    char folder[] = "/tmp/esper-XXXXXX";
    EXPECT_NE(mkdtemp(folder), nullptr);
    folder_ = folder;
    Write("token", "the-token-of-the-test\n");
    Write("access.json", absl::StrCat(
                             R"({"callers": [
        {"name": "actor", "roles": ["inference"],
         "certificate_uris": ["spiffe://test/actor"]},
        {"name": "holder", "roles": ["inference"], "token_files": [")",
                             File("token"), "\"]}]}"));
    options_.address = "127.0.0.1:0";
    options_.spec = SmallSpec();
    options_.access_file = File("access.json");
  }
  ~CredentialsTest() override { std::filesystem::remove_all(folder_); }

  std::string File(const std::string& name) const {
    return folder_ + "/" + name;
  }
  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(File(name) + ".tmp") << text;
    std::filesystem::rename(File(name) + ".tmp", File(name));
  }
  void Start() {
    auto server = server::Server::Create(options_);
    ASSERT_OK(server.status());
    server_ = *std::move(server);
  }
  // Status of one call by a new client.
  absl::Status Ask(const Credentials& credentials, std::string address = "") {
    client::ConnectOptions connect;
    connect.address =
        address.empty() ? absl::StrCat("localhost:", server_->port()) : address;
    connect.timeout = absl::Seconds(3);
    connect.credentials = credentials;
    client::RetryPolicy once;
    once.give_up_after = absl::ZeroDuration();
    auto client = PolicyClient::Connect(connect, once);
    if (!client.ok()) return client.status();
    return (*client)
        ->OpenEpisodes({{"env", ++incarnation_, /*seed=*/1}})
        .status();
  }

  std::string folder_;
  server::ServerOptions options_;
  std::unique_ptr<server::Server> server_;
  uint64_t incarnation_ = 0;
};

TEST_F(CredentialsTest, ACertificateOrATokenOpensTheDoor) {
  const Authority authority(folder_, "ca");
  authority.Issue("server");
  authority.Issue("actor", "spiffe://test/actor");
  authority.Issue("stranger", "spiffe://test/stranger");
  const Authority elsewhere(folder_, "elsewhere");
  options_.tls = {File("server.pem"), File("server.key"), File("ca.pem")};
  Start();
  const auto with = [&](const std::string& name) {
    return Credentials{File("ca.pem"), File(name + ".pem"),
                       File(name + ".key")};
  };
  EXPECT_OK(Ask(with("actor")));
  EXPECT_THAT(Ask(with("stranger")),
              StatusIs(absl::StatusCode::kUnauthenticated));
  Credentials holder = with("stranger");
  holder.token_file = File("token");
  EXPECT_OK(Ask(holder));
  Credentials misled = with("actor");
  misled.ca_file = File("elsewhere.pem");
  EXPECT_THAT(Ask(misled), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(Ask({}), StatusIs(absl::StatusCode::kUnavailable));
  Credentials renamed = with("actor");
  renamed.server_name = "elsewhere.example";
  EXPECT_THAT(Ask(renamed), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(CredentialsTest, ATokenIsEnoughOnThisMachineAndReadAgain) {
  options_.listen = {"unix:" + folder_ + "/socket"};
  Start();
  Credentials holder;
  holder.token_file = File("token");
  EXPECT_OK(Ask(holder));
  EXPECT_OK(Ask(holder, options_.listen[0]));
  EXPECT_THAT(Ask({}), StatusIs(absl::StatusCode::kUnauthenticated));

  // One client, while the token changes on both sides.
  client::ConnectOptions connect;
  connect.address = absl::StrCat("127.0.0.1:", server_->port());
  connect.credentials = holder;
  const auto client = PolicyClient::Connect(connect);
  ASSERT_OK(client.status());
  Write("token", "another-token-of-the-test");
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  absl::Status status;
  do {
    absl::SleepFor(absl::Milliseconds(1100));
    status = (*client)->OpenEpisodes({{"env", ++incarnation_, 1}}).status();
  } while (!status.ok() && absl::Now() < deadline);
  EXPECT_OK(status);
}

TEST_F(CredentialsTest, FieldsThatDoNotGoTogetherAreRefused) {
  Write("file", "x");
  const auto error = [](const Credentials& credentials) {
    return client::ChannelCredentialsFor(credentials, "localhost:1").status();
  };
  EXPECT_THAT(error({File("file"), File("file"), ""}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(error({"", File("file"), File("file")}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(error({File("none"), "", ""}),
              StatusIs(absl::StatusCode::kNotFound));
  EXPECT_OK(error({}));
}

}  // namespace
}  // namespace esper::testing
