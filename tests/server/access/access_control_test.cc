// Identity and authority over real TLS: who is let in, who may call what, and
// what changes while the server runs.
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "esper/v1/policy_admin.grpc.pb.h"
#include "esper/v1/policy_inference.grpc.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/security/credentials.h"
#include "gtest/gtest.h"
#include "server/access/role.h"
#include "server/server.h"
#include "tests/server/access/certificates.h"
#include "tests/server/service_fixture.h"
#include "tests/testing/status_matchers.h"

namespace esper::testing {
namespace {

using server::Role;
using server::Roles;

constexpr char kToken[] = "a-token-of-the-operator";

std::string NewFolder() {
  const std::string folder = absl::StrCat(
      ::testing::TempDir(), "/",
      ::testing::UnitTest::GetInstance()->current_test_info()->name());
  std::filesystem::create_directories(folder);
  return folder;
}

class AccessControlTest : public ::testing::Test {
 protected:
  AccessControlTest() : folder_(NewFolder()), authority_(folder_, "ca") {
    authority_.Issue("server");
    authority_.Issue("actor", "spiffe://test/actor");
    authority_.Issue("other", "spiffe://test/other");
    authority_.Issue("trainer", "spiffe://test/trainer");
    authority_.Issue("stranger", "spiffe://test/stranger");
    Write("token", kToken);
    WriteAccess("");
    options_.address = "127.0.0.1:0";
    options_.spec = SmallSpec();
    options_.tls = {File("server.pem"), File("server.key"), File("ca.pem")};
    options_.access_file = File("access.json");
  }

  std::string File(const std::string& name) const {
    return folder_ + "/" + name;
  }
  // As a whole, the way an operator should.
  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(File(name) + ".tmp") << text;
    std::filesystem::rename(File(name) + ".tmp", File(name));
  }
  // The callers of the tests, and `more`.
  void WriteAccess(const std::string& more) const {
    Write("access.json", absl::StrCat(R"({"callers": [
      {"name": "actor", "roles": ["inference"],
       "certificate_uris": ["spiffe://test/actor"]},
      {"name": "other", "roles": ["inference"],
       "certificate_uris": ["spiffe://test/other"]},
      {"name": "trainer", "roles": ["training"],
       "certificate_uris": ["spiffe://test/trainer"]},
      {"name": "operator", "roles": ["admin"], "token_files": [")",
                                      File("token"), "\"]}", more, "]}"));
  }

  void Start() {
    auto server = server::Server::Create(options_);
    ASSERT_OK(server.status());
    server_ = *std::move(server);
  }

  // Over a connection of its own; `identity` names a certificate, empty: none.
  std::shared_ptr<grpc::Channel> Connect(const std::string& identity,
                                         const std::string& authority = "ca",
                                         int port = 0) const {
    grpc::SslCredentialsOptions tls;
    tls.pem_root_certs = ReadText(File(authority + ".pem"));
    if (!identity.empty()) {
      tls.pem_cert_chain = ReadText(File(identity + ".pem"));
      tls.pem_private_key = ReadText(File(identity + ".key"));
    }
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(
        absl::StrCat("localhost:", port == 0 ? server_->port() : port),
        grpc::SslCredentials(tls), arguments);
  }

  // Status of an empty request to any method.
  static grpc::Status Call(
      const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
      const std::string& token = "",
      std::chrono::seconds timeout = std::chrono::seconds(30)) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + timeout);
    if (!token.empty()) {
      context.AddMetadata("authorization", "Bearer " + token);
    }
    grpc::GenericStub stub(channel);
    const grpc::Slice slice("");
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer response;
    grpc::Status status;
    absl::Notification done;
    stub.UnaryCall(&context, method, {}, &request, &response,
                   [&](grpc::Status result) {
                     status = std::move(result);
                     done.Notify();
                   });
    done.WaitForNotification();
    return status;
  }
  static grpc::StatusCode GetPolicy(
      const std::shared_ptr<grpc::Channel>& channel,
      const std::string& token = "") {
    return Call(channel, "/esper.v1.PolicyInference/GetPolicy", token)
        .error_code();
  }
  // Waits until a call ends with `code`.
  template <typename Attempt>
  static bool Becomes(grpc::StatusCode code, const Attempt& attempt) {
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    while (attempt() != code) {
      if (absl::Now() > deadline) return false;
      absl::SleepFor(absl::Milliseconds(100));
    }
    return true;
  }

  const std::string folder_;
  const Authority authority_;
  server::ServerOptions options_;
  std::unique_ptr<server::Server> server_;
};

TEST_F(AccessControlTest, EveryMethodAsksForItsRole) {
  Start();
  const struct {
    const char* certificate;
    const char* token;
    Roles roles;
  } callers[] = {{"actor", "", Role::kInference},
                 {"trainer", "", Role::kTraining},
                 {"stranger", kToken, Role::kAdmin},
                 {"stranger", "", Roles()}};
  int allowed = 0;
  int denied = 0;
  for (const auto& caller : callers) {
    const auto channel = Connect(caller.certificate);
    for (const server::MethodAccess& row : server::MethodTable()) {
      const bool may = row.everybody || caller.roles.Intersects(row.roles);
      // Streams that are let in stay open.
      const grpc::Status status = Call(channel, row.path, caller.token,
                                       std::chrono::seconds(may ? 2 : 30));
      const bool refused =
          status.error_code() == grpc::StatusCode::PERMISSION_DENIED ||
          status.error_code() == grpc::StatusCode::UNAUTHENTICATED;
      EXPECT_EQ(refused, !may) << caller.certificate << caller.token << " "
                               << row.path << ": " << status.error_message();
      ++(may ? allowed : denied);
      if (refused) {
        EXPECT_EQ(status.error_code() == grpc::StatusCode::UNAUTHENTICATED,
                  caller.roles.empty())
            << row.path;
      }
    }
    // A method that nobody has listed is refused to those who are known, too.
    const auto unlisted =
        Call(channel, "/esper.v1.PolicyAdmin/NoSuchCall", caller.token);
    EXPECT_TRUE(unlisted.error_code() == grpc::StatusCode::PERMISSION_DENIED ||
                unlisted.error_code() == grpc::StatusCode::UNAUTHENTICATED);
  }
  EXPECT_GT(allowed, 20);
  EXPECT_GT(denied, 40);
}

TEST_F(AccessControlTest, NobodyConnectsWithoutACertificateOfTheAuthority) {
  Start();
  EXPECT_EQ(GetPolicy(Connect("")), grpc::StatusCode::UNAVAILABLE);
  const Authority impostor(folder_, "impostor");
  impostor.Issue("fake", "spiffe://test/actor");
  EXPECT_EQ(GetPolicy(Connect("fake")), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(
      GetPolicy(grpc::CreateChannel(absl::StrCat("localhost:", server_->port()),
                                    grpc::InsecureChannelCredentials())),
      grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(GetPolicy(Connect("actor")), grpc::StatusCode::OK);
  // A token that nobody has does not fall back to the certificate.
  EXPECT_EQ(GetPolicy(Connect("actor"), "a-token-of-somebody-else"),
            grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(AccessControlTest, EpisodesBelongToWhoeverOpenedThem) {
  Start();
  const auto actor = v1::PolicyInference::NewStub(Connect("actor"));
  const auto other = v1::PolicyInference::NewStub(Connect("other"));
  const auto open = [](v1::PolicyInference::Stub* stub) {
    v1::OpenEpisodesRequest request;
    request.add_episodes()->set_environment_key("env");
    request.mutable_episodes(0)->set_incarnation(1);
    grpc::ClientContext context;
    v1::OpenEpisodesResponse response;
    const grpc::Status status =
        stub->OpenEpisodes(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.episode_ids(0);
  };
  // One key for both: neither supersedes the other's episode.
  const std::string mine = open(actor.get());
  const std::string theirs = open(other.get());
  const auto close = [](v1::PolicyInference::Stub* stub,
                        const std::string& id) {
    v1::CloseEpisodesRequest request;
    request.add_episodes()->set_episode_id(id);
    request.mutable_episodes(0)->set_incarnation(1);
    request.mutable_episodes(0)->set_end_kind(v1::END_KIND_ABORTED);
    grpc::ClientContext context;
    v1::CloseEpisodesResponse response;
    return stub->CloseEpisodes(&context, request, &response);
  };
  const grpc::Status foreign = close(other.get(), mine);
  const grpc::Status unknown = close(other.get(), std::string(16, 'x'));
  EXPECT_EQ(foreign.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(foreign.error_message(), unknown.error_message());
  EXPECT_TRUE(close(actor.get(), mine).ok());
  EXPECT_EQ(close(other.get(), mine).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_TRUE(close(other.get(), theirs).ok());
}

TEST_F(AccessControlTest, TheAccessFileIsReadAgainWhenItChanges) {
  Start();
  const auto stranger = Connect("stranger");
  EXPECT_EQ(GetPolicy(stranger), grpc::StatusCode::UNAUTHENTICATED);
  WriteAccess(R"(, {"name": "guest", "roles": ["inference"],
                    "certificate_uris": ["spiffe://test/stranger"]})");
  EXPECT_TRUE(
      Becomes(grpc::StatusCode::OK, [&] { return GetPolicy(stranger); }));
  // A file that cannot be read changes nothing; a new token file does.
  Write("access.json", "{");
  absl::SleepFor(absl::Seconds(2));
  EXPECT_EQ(GetPolicy(stranger), grpc::StatusCode::OK);
  WriteAccess("");
  EXPECT_TRUE(Becomes(grpc::StatusCode::UNAUTHENTICATED,
                      [&] { return GetPolicy(stranger); }));
  EXPECT_EQ(GetPolicy(stranger, kToken), grpc::StatusCode::OK);
  Write("token", "the-next-token-of-the-operator");
  EXPECT_TRUE(Becomes(grpc::StatusCode::UNAUTHENTICATED,
                      [&] { return GetPolicy(stranger, kToken); }));
  EXPECT_EQ(GetPolicy(stranger, "the-next-token-of-the-operator"),
            grpc::StatusCode::OK);
}

TEST_F(AccessControlTest, CertificatesAreSwappedUnderLoadWithoutAFailure) {
  Start();
  const auto busy = Connect("actor");
  const Authority next(folder_, "next");
  std::atomic<bool> stop{false};
  std::atomic<int> calls{0};
  std::map<int, int> failures;  // By code; of the load's thread until it ends.
  std::thread load([&] {
    while (!stop) {
      const grpc::StatusCode code = GetPolicy(busy);
      if (code != grpc::StatusCode::OK) ++failures[code];
      ++calls;
    }
  });
  // Clients that believe the next authority do not believe the server yet.
  EXPECT_EQ(GetPolicy(Connect("actor", "next")), grpc::StatusCode::UNAVAILABLE);
  next.Issue("server-next");
  std::filesystem::copy_file(File("server-next.key"), File("key.tmp"));
  std::filesystem::copy_file(File("server-next.pem"), File("pem.tmp"));
  std::filesystem::rename(File("key.tmp"), File("server.key"));
  std::filesystem::rename(File("pem.tmp"), File("server.pem"));
  EXPECT_TRUE(Becomes(grpc::StatusCode::OK,
                      [&] { return GetPolicy(Connect("actor", "next")); }));
  const int seen = calls;
  while (calls < seen + 20) absl::SleepFor(absl::Milliseconds(10));
  stop = true;
  load.join();
  EXPECT_TRUE(failures.empty()) << failures.begin()->first;
}

TEST_F(AccessControlTest, TheOperatorsCallsHaveAnAddressOfTheirOwn) {
  options_.admin_address = "127.0.0.1:0";
  Start();
  const char kStatus[] = "/esper.v1.PolicyAdmin/GetStatus";
  EXPECT_EQ(Call(Connect("stranger"), kStatus, kToken).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
  const auto admin = Connect("stranger", "ca", server_->admin_port());
  EXPECT_EQ(Call(admin, kStatus, kToken).error_code(), grpc::StatusCode::OK);
  EXPECT_EQ(GetPolicy(Connect("actor", "ca", server_->admin_port())),
            grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(AccessControlTest, ProbesNeedNoCertificate) {
  options_.health_address = "127.0.0.1:0";
  options_.self_dial.interval = absl::Milliseconds(50);
  Start();
  const auto probes =
      grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->health_port()),
                          grpc::InsecureChannelCredentials());
  const auto stub = grpc::health::v1::Health::NewStub(probes);
  const auto check = [&](const std::string& service) {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(service);
    grpc::health::v1::HealthCheckResponse response;
    const grpc::Status status = stub->Check(&context, request, &response);
    return status.ok() ? response.status()
                       : -static_cast<int>(status.error_code());
  };
  // Several dials over mTLS happen meanwhile, and succeed.
  absl::SleepFor(absl::Seconds(1));
  for (const char* service :
       {"", "readiness", "liveness", "esper.v1.PolicyInference"}) {
    EXPECT_EQ(check(service), grpc::health::v1::HealthCheckResponse::SERVING)
        << service;
  }
  EXPECT_EQ(check("nonsense"), -grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(GetPolicy(probes), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(AccessControlTest, OtherMachinesAreListenedToWithCredentialsOnly) {
  options_.address = "0.0.0.0:0";
  server::ServerOptions open = options_;
  open.access_file.clear();
  EXPECT_THAT(server::Server::Create(open).status(),
              StatusIs(absl::StatusCode::kPermissionDenied));
  server::ServerOptions plain = options_;
  plain.tls = {};
  EXPECT_THAT(server::Server::Create(plain).status(),
              StatusIs(absl::StatusCode::kPermissionDenied));
  Start();
  EXPECT_EQ(GetPolicy(Connect("actor")), grpc::StatusCode::OK);
}

TEST_F(AccessControlTest, FilesThatDoNotFitAreRefusedAtTheStart) {
  const auto with = [&](const server::TlsFiles& tls) {
    server::ServerOptions options = options_;
    options.tls = tls;
    return server::Server::Create(options).status();
  };
  const auto mentions = [](const absl::Status& status, const char* text) {
    return status.code() == absl::StatusCode::kInvalidArgument &&
           std::string(status.message()).find(text) != std::string::npos;
  };
  EXPECT_TRUE(mentions(with({File("server.pem"), File("actor.key"), ""}),
                       "is not the key of"));
  EXPECT_TRUE(mentions(with({File("none.pem"), File("actor.key"), ""}),
                       "cannot be read"));
  EXPECT_TRUE(mentions(with({File("server.key"), File("server.key"), ""}),
                       "holds no certificate"));
  EXPECT_TRUE(mentions(with({File("server.pem"), "", ""}), "go together"));
  EXPECT_TRUE(mentions(with({"", "", File("ca.pem")}), "tls_client_ca_file"));
}

TEST_F(AccessControlTest, ALoopbackWithoutTlsTakesTokens) {
  options_.tls = {};
  Start();
  const auto channel =
      grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()),
                          grpc::InsecureChannelCredentials());
  EXPECT_EQ(GetPolicy(channel), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(GetPolicy(channel, kToken), grpc::StatusCode::OK);
}

}  // namespace
}  // namespace esper::testing
