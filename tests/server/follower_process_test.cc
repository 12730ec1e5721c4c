// A trainer and three followers as processes: how long a published version
// takes to be in use, and what happens when the trainer is killed.
//
// ESPER_FOLLOWER_PUBLISHES (5) and ESPER_FOLLOWER_WIDTH (32; 512 is the default
// policy) make a measurement of the first test.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "core/policy/policy_spec.h"
#include "esper/v1/policy_admin.grpc.pb.h"
#include "esper/v1/policy_inference.grpc.pb.h"
#include "esper/v1/policy_training.grpc.pb.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "tests/server/server_process.h"
#include "tests/testing/rollout.h"

namespace esper::testing {
namespace {

using ::testing::HasSubstr;

constexpr int kFollowers = 3;
constexpr absl::Duration kPatience = absl::Seconds(120);

int FromEnvironment(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

// A server's stubs.
struct Peer {
  explicit Peer(const std::string& port)
      : channel(grpc::CreateChannel("127.0.0.1:" + port,
                                    grpc::InsecureChannelCredentials())),
        inference(v1::PolicyInference::NewStub(channel)),
        training(v1::PolicyTraining::NewStub(channel)),
        admin(v1::PolicyAdmin::NewStub(channel)) {}

  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::PolicyInference::Stub> inference;
  std::unique_ptr<v1::PolicyTraining::Stub> training;
  std::unique_ptr<v1::PolicyAdmin::Stub> admin;
};

class FollowerProcessTest : public ::testing::Test {
 protected:
  FollowerProcessTest()
      : folder_(absl::StrCat(::testing::TempDir(), "/followers", getpid())) {
    std::filesystem::create_directories(folder_);
    policy::NetworkGrowingOptions options;
    options.feature_dim = FromEnvironment("ESPER_FOLLOWER_WIDTH", 32);
    options.hidden_dim = options.feature_dim;
    spec_ = policy::PolicySpec::NetworkGrowing(options);
    std::ofstream(folder_ + "/spec.json") << spec_.ToJson();
  }
  ~FollowerProcessTest() override { std::filesystem::remove_all(folder_); }

  void StartTrainer(const std::string& port,
                    const std::vector<std::string>& more = {}) {
    std::vector<std::string> flags = {
        "--address=127.0.0.1:" + port,
        "--policy_spec=" + folder_ + "/spec.json",
        "--checkpoint_dir=" + folder_ + "/points"};
    flags.insert(flags.end(), more.begin(), more.end());
    trainer_process_ = std::make_unique<ServerProcess>(flags);
    port_ = trainer_process_->AwaitPort();
    ASSERT_NE(port_, "") << trainer_process_->Log();
    trainer_ = std::make_unique<Peer>(port_);
  }
  void StartFollowers() {
    for (int i = 0; i < kFollowers; ++i) {
      processes_.push_back(
          std::make_unique<ServerProcess>(std::vector<std::string>{
              "--address=127.0.0.1:0", "--follow=127.0.0.1:" + port_,
              "--follow_timeout=60s"}));
    }
    for (const auto& process : processes_) {
      const std::string port = process->AwaitPort();
      ASSERT_NE(port, "") << process->Log();
      followers_.push_back(std::make_unique<Peer>(port));
    }
  }

  template <typename Stub, typename Request, typename Response>
  static grpc::Status Call(Stub& stub,
                           grpc::Status (Stub::*method)(grpc::ClientContext*,
                                                        const Request&,
                                                        Response*),
                           const Request& request, Response* response) {
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
    return (stub.*method)(&context, request, response);
  }

  // The version that answers the first step of an episode; 0: none did.
  static int64_t ActingVersion(Peer& peer) {
    v1::GetActionRequest request;
    request.add_rows()->mutable_client_episode()->set_seed(1);
    v1::Tensor* tensor = request.mutable_observations();
    tensor->set_dtype(v1::DATA_TYPE_FLOAT32);
    tensor->add_shape(1);
    tensor->add_shape(116);
    tensor->set_data(std::string(464, '\0'));
    tensor = request.mutable_categorical();
    tensor->set_dtype(v1::DATA_TYPE_INT8);
    tensor->add_shape(1);
    tensor->add_shape(3);
    tensor->set_data(std::string(3, '\xff'));
    tensor = request.mutable_action_masks();
    tensor->set_dtype(v1::DATA_TYPE_UINT8);
    tensor->add_shape(1);
    tensor->add_shape(7);
    tensor->set_data(std::string(7, '\xff'));
    v1::GetActionResponse response;
    const grpc::Status status =
        Call(*peer.inference, &v1::PolicyInference::Stub::GetAction, request,
             &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return status.ok() ? response.header().policy_version() : 0;
  }
  static bool AwaitVersion(Peer& peer, int64_t version) {
    const absl::Time deadline = absl::Now() + kPatience;
    while (ActingVersion(peer) != version) {
      if (absl::Now() > deadline) return false;
      absl::SleepFor(absl::Milliseconds(1));
    }
    return true;
  }

  void TakeLease() {
    v1::AcquireLearnerRequest request;
    request.set_holder("test");
    v1::AcquireLearnerResponse response;
    const grpc::Status status =
        Call(*trainer_->training, &v1::PolicyTraining::Stub::AcquireLearner,
             request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    token_ = response.lease_token();
    sequence_ = 0;
  }
  v1::LearnerWrite NextWrite() {
    v1::LearnerWrite write;
    write.set_lease_token(token_);
    write.set_sequence(++sequence_);
    return write;
  }
  // Trains on a few steps; the gradient waits for `Publish`.
  void Accumulate(uint64_t seed) {
    v1::ForwardBackwardRequest request;
    *request.mutable_write() = NextWrite();
    *request.mutable_batch() =
        ActEpisodes(trainer_->channel, spec_, 2, 3, seed);
    request.mutable_ppo();
    request.set_first_pass(true);
    v1::ForwardBackwardResponse response;
    const grpc::Status status =
        Call(*trainer_->training, &v1::PolicyTraining::Stub::ForwardBackward,
             request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }
  // The version published; 0: it failed.
  int64_t Publish() {
    v1::OptimStepRequest request;
    *request.mutable_write() = NextWrite();
    request.set_publish(true);
    v1::OptimStepResponse response;
    const grpc::Status status =
        Call(*trainer_->training, &v1::PolicyTraining::Stub::OptimStep, request,
             &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.header().policy_version();
  }

  const std::string folder_;
  policy::PolicySpec spec_;
  std::string port_;
  std::unique_ptr<ServerProcess> trainer_process_;
  std::vector<std::unique_ptr<ServerProcess>> processes_;
  std::unique_ptr<Peer> trainer_;
  std::vector<std::unique_ptr<Peer>> followers_;
  int64_t token_ = 0;
  int64_t sequence_ = 0;
};

TEST_F(FollowerProcessTest, EveryPublishIsSoonInUseEverywhere) {
  ASSERT_NO_FATAL_FAILURE(StartTrainer("0"));
  ASSERT_NO_FATAL_FAILURE(StartFollowers());
  ASSERT_NO_FATAL_FAILURE(TakeLease());
  const int publishes = FromEnvironment("ESPER_FOLLOWER_PUBLISHES", 5);
  std::vector<double> each, last;  // Milliseconds.
  for (int i = 0; i < publishes; ++i) {
    ASSERT_NO_FATAL_FAILURE(Accumulate(i));
    // From the answer that names the new version, which the trainer then acts
    // with, to the first answer of a follower under it.
    const int64_t version = Publish();
    const absl::Time published = absl::Now();
    ASSERT_EQ(version, i + 2);
    std::vector<double> took(kFollowers, -1);
    std::vector<std::thread> threads;
    for (int k = 0; k < kFollowers; ++k) {
      threads.emplace_back([&, k] {
        if (AwaitVersion(*followers_[k], version)) {
          took[k] = absl::ToDoubleMilliseconds(absl::Now() - published);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const double milliseconds : took) EXPECT_GE(milliseconds, 0);
    each.insert(each.end(), took.begin(), took.end());
    last.push_back(*std::max_element(took.begin(), took.end()));
  }
  std::sort(each.begin(), each.end());
  std::sort(last.begin(), last.end());
  std::printf(
      "publish to use, width %d, %d publishes, %d followers: one follower "
      "median %.1f ms, all of them median %.1f ms, max %.1f ms\n",
      static_cast<int>(spec_.hidden_dim), publishes, kFollowers,
      each[each.size() / 2], last[last.size() / 2], last.back());
}

TEST_F(FollowerProcessTest, FollowersOutliveTheTrainer) {
  ASSERT_NO_FATAL_FAILURE(StartTrainer("0"));
  ASSERT_NO_FATAL_FAILURE(StartFollowers());
  ASSERT_NO_FATAL_FAILURE(TakeLease());
  ASSERT_NO_FATAL_FAILURE(Accumulate(1));
  ASSERT_EQ(Publish(), 2);
  v1::SaveCheckpointResponse saved;
  ASSERT_TRUE(Call(*trainer_->admin, &v1::PolicyAdmin::Stub::SaveCheckpoint,
                   v1::SaveCheckpointRequest(), &saved)
                  .ok());
  ASSERT_NO_FATAL_FAILURE(Accumulate(2));
  ASSERT_EQ(Publish(), 3);
  for (const auto& follower : followers_) {
    ASSERT_TRUE(AwaitVersion(*follower, 3));
  }
  trainer_process_->Signal(SIGKILL);
  EXPECT_EQ(trainer_process_->AwaitExit(), 128 + SIGKILL);
  for (const auto& follower : followers_) {
    for (int i = 0; i < 20; ++i) EXPECT_EQ(ActingVersion(*follower), 3);
    const absl::Time deadline = absl::Now() + kPatience;
    v1::GetStatusResponse status;
    do {
      ASSERT_TRUE(Call(*follower->admin, &v1::PolicyAdmin::Stub::GetStatus,
                       v1::GetStatusRequest(), &status)
                      .ok());
      ASSERT_LT(absl::Now(), deadline);
    } while (status.follower().connected());
    EXPECT_EQ(status.follower().followed_version(), 3);
  }
  // Version 3 was in no checkpoint: the trainer goes back, and all with it.
  ASSERT_NO_FATAL_FAILURE(StartTrainer(port_, {"--restore=latest"}));
  for (const auto& follower : followers_) {
    EXPECT_TRUE(AwaitVersion(*follower, 2));
  }
  ASSERT_NO_FATAL_FAILURE(TakeLease());
  ASSERT_NO_FATAL_FAILURE(Accumulate(3));
  ASSERT_EQ(Publish(), 4);  // A number is given out once.
  for (const auto& follower : followers_) {
    EXPECT_TRUE(AwaitVersion(*follower, 4));
  }
  for (const auto& process : processes_) process->Signal(SIGTERM);
  for (const auto& process : processes_) {
    EXPECT_EQ(process->AwaitExit(), 0) << process->Log();
    EXPECT_THAT(process->Log(), HasSubstr("clean exit"));
  }
}

TEST_F(FollowerProcessTest, RefusesFlagsThatMakeNoSenseTogether) {
  const std::string follow = "--follow=127.0.0.1:1";
  const std::vector<std::vector<std::string>> cases = {
      {follow, "--restore=latest"},           {follow, "--init_seed=3"},
      {follow, "--set=learner.popart=false"}, {follow, "--profile=upstream"},
      {follow, "--inference_precision=bf16"},
  };
  std::vector<std::unique_ptr<ServerProcess>> servers;
  for (const auto& flags : cases) {
    servers.push_back(std::make_unique<ServerProcess>(flags));
  }
  for (const auto& server : servers) {
    EXPECT_EQ(server->AwaitExit(), 1) << server->Log();
    EXPECT_THAT(server->Log(), HasSubstr("means nothing with --follow"));
  }
}

TEST_F(FollowerProcessTest, RefusesAnotherSpecificationAtItsStart) {
  ASSERT_NO_FATAL_FAILURE(StartTrainer("0"));
  policy::NetworkGrowingOptions other;
  other.hidden_dim = 24;
  std::ofstream(folder_ + "/other.json")
      << policy::PolicySpec::NetworkGrowing(other).ToJson();
  ServerProcess follower({"--address=127.0.0.1:0",
                          "--follow=127.0.0.1:" + port_,
                          "--policy_spec=" + folder_ + "/other.json"});
  EXPECT_EQ(follower.AwaitExit(), 1) << follower.Log();
  EXPECT_THAT(follower.Log(), HasSubstr("acts with specification"));
}

}  // namespace
}  // namespace esper::testing
