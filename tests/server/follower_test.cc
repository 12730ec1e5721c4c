// Servers that follow another one: real services over real sockets.

#include <filesystem>
#include <fstream>
#include <future>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "esper/v1/policy_admin.grpc.pb.h"
#include "esper/v1/policy_training.grpc.pb.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "proto/codec/error_detail.h"
#include "tests/server/access/certificates.h"
#include "tests/server/service_fixture.h"
#include "tests/testing/status_matchers.h"

namespace esper::testing {
namespace {

using Code = absl::StatusCode;
using server::Server;
using server::ServerOptions;

// Generous: the machine may be busy. Conditions are waited for, not times.
constexpr absl::Duration kPatience = absl::Seconds(120);

template <typename Condition>
bool Eventually(const Condition& condition) {
  const absl::Time deadline = absl::Now() + kPatience;
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(5));
  }
  return true;
}

class FollowerTest : public ServiceTest {
 protected:
  ServerOptions TrainerOptions(int port = 0) {
    ServerOptions options = Options();
    options.address = absl::StrCat("127.0.0.1:", port);
    return options;
  }
  // Of a follower of the server at `port`.
  ServerOptions FollowOptions(int port) {
    ServerOptions options;
    options.address = "";
    options.follow.source = absl::StrCat("127.0.0.1:", port);
    options.follow.max_backoff = absl::Milliseconds(200);
    options.clock = clock_.AsClock();
    options.inference.max_episodes = 64;
    return options;
  }
  std::unique_ptr<Server> Follow(const ServerOptions& options) {
    auto follower = Server::Create(options);
    EXPECT_OK(follower);
    return follower.ok() ? *std::move(follower) : nullptr;
  }
  std::unique_ptr<Server> Follow() {
    return Follow(FollowOptions(server_->port()));
  }

  // The version that `server` acts with, with moved weights, a scaler and lower
  // floors, under another number.
  static ppo::PolicySnapshot Moved(Server& server, int64_t version) {
    ppo::PolicySnapshot snapshot = server.policies().Current()->snapshot;
    snapshot.version = version;
    for (auto& [name, weight] : snapshot.weights) {
      if (weight.scalar_type() == at::kFloat) {
        weight = weight.mul(1 + 0.01 * version);
      }
    }
    ppo::Moments moments =
        ppo::Moments::Initial(server.policies().spec().observation_width(), 9);
    for (size_t i = 0; i < moments.mean.size(); ++i) {
      moments.mean[i] = 0.1 / (3.0 + i);
      moments.variance[i] = 1.0 / (1.7 + i);
    }
    snapshot.scaler = ppo::ObservationScaler(moments, 1e-4, 10.0 / 3);
    snapshot.floor_scale = 1.0 / 3;
    snapshot.floors =
        server.policies().spec().Floors().Scaled(snapshot.floor_scale);
    snapshot.value_unit = 10.0 / 7;
    return snapshot;
  }

  // Ten steps of an episode on `server`, which may be a follower.
  std::vector<StepNumbers> PlayOn(Server& server, const std::string& key) {
    auto own = std::exchange(
        stub_, v1::PolicyInference::NewStub(server.InProcessChannel()));
    auto played = Play(Open(key, /*seed=*/5), 0, 10);
    stub_ = std::move(own);
    return played;
  }
  // Bit by bit.
  void ExpectActsAsTheTrainer(Server& follower) {
    static int episode = 0;
    const std::string key = absl::StrCat("episode", ++episode);
    const auto expected = PlayOn(*server_, key);
    const auto got = PlayOn(follower, key);
    ASSERT_EQ(expected.size(), 10u);
    ASSERT_EQ(got.size(), 10u);
    for (size_t step = 0; step < got.size(); ++step) {
      EXPECT_TRUE(got[step] == expected[step]) << "step " << step;
    }
  }

  static v1::GetStatusResponse Status(Server& server) {
    auto stub = v1::PolicyAdmin::NewStub(server.InProcessChannel());
    grpc::ClientContext context;
    v1::GetStatusResponse response;
    const grpc::Status status =
        stub->GetStatus(&context, v1::GetStatusRequest(), &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
};

TEST_F(FollowerTest, AnswersBitForBitAsTheTrainer) {
  Start(TrainerOptions());
  auto follower = Follow();
  ASSERT_NE(follower, nullptr);
  EXPECT_EQ(follower->policies().version(), 1);
  ExpectActsAsTheTrainer(*follower);

  ASSERT_OK(server_->policies().Publish(Moved(*server_, 2)));
  ASSERT_TRUE(Eventually([&] { return follower->policies().version() == 2; }));
  ExpectActsAsTheTrainer(*follower);
  const auto& copy = follower->policies().Current()->snapshot;
  EXPECT_EQ(copy.value_unit, 10.0 / 7);
  EXPECT_EQ(copy.floor_scale, 1.0 / 3);
  EXPECT_EQ(copy.floors, server_->policies().Current()->snapshot.floors);
}

TEST_F(FollowerTest, ThePrecisionIsThatOfTheVersion) {
  ServerOptions options = TrainerOptions();
  options.inference.precision = policy::InferencePrecision::kBf16;
  Start(options);
  auto follower = Follow();
  ASSERT_NE(follower, nullptr);
  EXPECT_EQ(follower->policies().Current()->precision, "bf16");
  v1::ResponseHeader header;
  follower->policies().FillHeader(&header);
  EXPECT_EQ(header.precision(), v1::INFERENCE_PRECISION_BF16);
}

TEST_F(FollowerTest, FollowsWhereverTheTrainerGoes) {
  Start(TrainerOptions());
  auto follower = Follow();
  ASSERT_NE(follower, nullptr);
  // Up, back to what a checkpoint holds, and to other weights of a number.
  for (const int64_t version : {2, 3, 7, 2, 2, 8}) {
    const ppo::PolicySnapshot snapshot = Moved(*server_, version);
    ASSERT_OK(server_->policies().Publish(snapshot));
    ASSERT_TRUE(Eventually([&] {
      const auto current = follower->policies().Current();
      return current->version == version &&
             current->snapshot.weights[0].second.equal(
                 snapshot.weights[0].second);
    })) << version;
  }
  ExpectActsAsTheTrainer(*follower);
  const auto status = Status(*follower);
  EXPECT_EQ(status.role(), v1::SERVER_ROLE_FOLLOWER);
  EXPECT_EQ(status.header().policy_version(), 8);
  EXPECT_EQ(status.follower().followed_version(), 8);
  EXPECT_EQ(status.follower().versions_followed(), 7);
  EXPECT_TRUE(status.follower().connected());
  EXPECT_EQ(status.follower().seconds_since_contact(), 0);
  EXPECT_EQ(Status(*server_).role(), v1::SERVER_ROLE_TRAINER);
  EXPECT_EQ(Status(*server_).watchers(), 1);
}

TEST_F(FollowerTest, ServesOnWhileTheTrainerIsAwayAndFollowsItAgain) {
  Start(TrainerOptions());
  ASSERT_OK(server_->policies().Publish(Moved(*server_, 2)));
  const auto expected = PlayOn(*server_, "before");
  const int port = server_->port();
  auto follower = Follow(FollowOptions(port));
  ASSERT_NE(follower, nullptr);

  server_ = nullptr;
  ASSERT_TRUE(
      Eventually([&] { return !Status(*follower).follower().connected(); }));
  clock_.Advance(absl::Seconds(30));
  const auto status = Status(*follower).follower();
  EXPECT_GE(status.seconds_since_contact(), 30);
  EXPECT_FALSE(status.last_error().empty());
  EXPECT_EQ(status.followed_version(), 2);
  EXPECT_TRUE(PlayOn(*follower, "alone") == expected);

  // One that begins anew, with other weights under the same numbers.
  ServerOptions options = TrainerOptions(port);
  options.init_seed = 12;
  Start(options);
  ASSERT_TRUE(Eventually([&] { return follower->policies().version() == 1; }));
  ExpectActsAsTheTrainer(*follower);
  ASSERT_OK(server_->policies().Publish(Moved(*server_, 2)));
  ASSERT_TRUE(Eventually([&] { return follower->policies().version() == 2; }));
  ExpectActsAsTheTrainer(*follower);
  EXPECT_EQ(Status(*follower).follower().last_error(), "");
}

TEST_F(FollowerTest, AStateOfTheTrainerGoesOnAtAFollower) {
  Start(TrainerOptions());
  auto follower = Follow();
  ASSERT_NE(follower, nullptr);
  const auto play = [&](const std::vector<Server*>& servers) {
    std::vector<StepNumbers> played;
    std::string state;
    for (size_t step = 0; step < servers.size(); ++step) {
      stub_ = v1::PolicyInference::NewStub(servers[step]->InProcessChannel());
      v1::GetActionRequest request = Request("", step);
      request.mutable_rows(0)->clear_incarnation();
      if (step == 0) {
        request.mutable_rows(0)->mutable_client_episode()->set_seed(4);
      } else {
        request.mutable_rows(0)->set_recurrent_state(state);
      }
      const auto response = Act(request);
      EXPECT_OK(response);
      if (!response.ok()) break;
      state = response->recurrent_states(0);
      played.push_back(NumbersOf(*response, 0));
    }
    return played;
  };
  Server* const trainer = server_.get();
  Server* const other = follower.get();
  const auto expected = play({trainer, trainer, trainer, trainer, trainer});
  EXPECT_EQ(expected.size(), 5u);
  EXPECT_TRUE(play({trainer, other, other, trainer, other}) == expected);
}

TEST_F(FollowerTest, RefusesWhatNeedsALearnerAndSaysWhereToGo) {
  Start(TrainerOptions());
  auto follower = Follow();
  ASSERT_NE(follower, nullptr);
  grpc::GenericStub stub(follower->InProcessChannel());
  const auto call = [&](const std::string& method) {
    grpc::ClientContext context;
    const grpc::Slice empty;
    const grpc::ByteBuffer request(&empty, 1);
    grpc::ByteBuffer response;
    std::promise<grpc::Status> done;
    stub.UnaryCall(&context, method, {}, &request, &response,
                   [&](grpc::Status status) { done.set_value(status); });
    return codec::DecodeStatus(done.get_future().get(), context);
  };
  int refused = 0;
  for (const auto* service :
       {v1::WatchPolicyRequest::descriptor()->file()->service(0),
        v1::GetStatusRequest::descriptor()->file()->service(0)}) {
    for (int i = 0; i < service->method_count(); ++i) {
      if (service->method(i)->name() == "GetStatus") continue;
      const absl::Status status = call(absl::StrCat(
          "/", service->full_name(), "/", service->method(i)->name()));
      EXPECT_THAT(status, Refused(Code::kFailedPrecondition, "FOLLOWER"));
      EXPECT_NE(std::string(status.message())
                    .find(absl::StrCat("127.0.0.1:", server_->port())),
                std::string::npos)
          << status;
      ++refused;
    }
  }
  EXPECT_GE(refused, 9);
  EXPECT_EQ(Status(*follower).refusals().at("FOLLOWER"), refused);
  EXPECT_EQ(call("/esper.v1.Nobody/Knows").code(), Code::kUnimplemented);
}

TEST_F(FollowerTest, TheSpecificationMustBeTheTrainers) {
  Start(TrainerOptions());
  ServerOptions options = FollowOptions(server_->port());
  options.spec = spec_;
  EXPECT_NE(Follow(options), nullptr);
  policy::NetworkGrowingOptions other;
  other.hidden_dim = 24;
  options.spec = policy::PolicySpec::NetworkGrowing(other);
  EXPECT_THAT(Server::Create(options),
              Refused(Code::kFailedPrecondition, "SPEC_MISMATCH"));
  options.spec.reset();
  options.restore = "latest";
  EXPECT_THAT(Server::Create(options),
              Refused(Code::kInvalidArgument, "MALFORMED_REQUEST"));
  // Nobody to ask.
  options = FollowOptions(server_->port());
  options.follow.start_timeout = absl::Milliseconds(300);
  server_ = nullptr;
  EXPECT_THAT(Server::Create(options), StatusIs(Code::kUnavailable));
}

TEST_F(FollowerTest, FollowsOverMutualTls) {
  const std::string folder = ::testing::TempDir() + "/follower_tls";
  std::filesystem::create_directories(folder);
  const Authority authority(folder, "ca");
  authority.Issue("trainer");
  authority.Issue("follower", "spiffe://test/follower");
  authority.Issue("stranger", "spiffe://test/stranger");
  std::ofstream(folder + "/access.json") << R"({"callers": [
      {"name": "followers", "roles": ["training"],
       "certificate_uris": ["spiffe://test/follower"]}]})";
  ServerOptions trainer = TrainerOptions();
  trainer.tls = {authority.Path("trainer") + ".pem",
                 authority.Path("trainer") + ".key",
                 authority.certificate_file()};
  trainer.access_file = folder + "/access.json";
  Start(trainer);
  ServerOptions options = FollowOptions(server_->port());
  options.follow.start_timeout = absl::Seconds(5);
  options.follow.authorities = authority.certificate_file();
  options.follow.identity = {authority.Path("follower") + ".pem",
                             authority.Path("follower") + ".key", ""};
  auto follower = Follow(options);
  ASSERT_NE(follower, nullptr);
  EXPECT_EQ(follower->policies().version(), 1);
  // Known to the authority, without the role.
  options.follow.identity = {authority.Path("stranger") + ".pem",
                             authority.Path("stranger") + ".key", ""};
  EXPECT_THAT(Server::Create(options), StatusIs(Code::kUnauthenticated));
}

TEST_F(FollowerTest, IsNotReadyBeforeItsFirstVersion) {
  Start(TrainerOptions());
  const int port = server_->port();
  server_ = nullptr;
  ServerOptions options = FollowOptions(port);
  options.spec = spec_;
  auto follower = Follow(options);
  ASSERT_NE(follower, nullptr);
  stub_ = v1::PolicyInference::NewStub(follower->InProcessChannel());
  EXPECT_THAT(Open(OpenRequest("env", 1)),
              Refused(Code::kUnavailable, "NOT_READY"));
  v1::GetActionRequest request = Request("", 0);
  request.mutable_rows(0)->clear_incarnation();
  request.mutable_rows(0)->mutable_client_episode();
  EXPECT_THAT(Act(request), Refused(Code::kUnavailable, "NOT_READY"));
  EXPECT_EQ(Status(*follower).follower().followed_version(), 0);
  EXPECT_LT(Status(*follower).follower().seconds_since_contact(), 0);

  Start(TrainerOptions(port));
  ASSERT_TRUE(Eventually([&] { return follower->policies().version() == 1; }));
  ExpectActsAsTheTrainer(*follower);
}

TEST_F(FollowerTest, StartsFromTheVersionItKeptWhileTheTrainerIsAway) {
  const auto folder =
      std::filesystem::path(::testing::TempDir()) / "follower_kept";
  std::filesystem::remove_all(folder);
  Start(TrainerOptions());
  ServerOptions options = FollowOptions(server_->port());
  options.checkpoint_dir = folder.string();
  auto follower = Follow(options);
  ASSERT_NE(follower, nullptr);
  ASSERT_OK(server_->policies().Publish(Moved(*server_, 2)));
  ASSERT_TRUE(Eventually([&] { return follower->policies().version() == 2; }));
  const auto expected = PlayOn(*follower, "before");
  follower = nullptr;
  server_ = nullptr;

  follower = Follow(options);
  ASSERT_NE(follower, nullptr);
  EXPECT_EQ(follower->policies().version(), 2);
  EXPECT_TRUE(PlayOn(*follower, "after") == expected);

  // One damaged byte, and it is not used.
  follower = nullptr;
  const auto file = folder / "followed" / "policy.safetensors";
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  options.follow.start_timeout = absl::Milliseconds(300);
  EXPECT_THAT(Server::Create(options), StatusIs(Code::kUnavailable));
}

}  // namespace
}  // namespace esper::testing
