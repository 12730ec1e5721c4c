#ifndef ESPER_TESTS_SERVER_TRAINING_SERVER_H_
#define ESPER_TESTS_SERVER_TRAINING_SERVER_H_

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "esper/v1/policy_admin.grpc.pb.h"
#include "esper/v1/policy_training.grpc.pb.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "gtest/gtest.h"
#include "proto/codec/error_detail.h"
#include "server/server.h"
#include "tests/testing/rollout.h"
#include "tests/testing/status_matchers.h"

namespace esper::server {

// Steps of every episode that `TrainingServerTest::Act` acts.
inline constexpr int kSteps = 6;

// Overwrites one element of a float32 tensor.
inline void SetFloat(v1::Tensor* tensor, int64_t index, float value) {
  tensor->mutable_data()->replace(index * sizeof(float), sizeof(float),
                                  reinterpret_cast<const char*>(&value),
                                  sizeof(float));
}

// A server with a small policy behind a real socket, its learner lease taken,
// and short ways to call it.
class TrainingServerTest : public ::testing::Test {
 protected:
  explicit TrainingServerTest(
      policy::PolicySpec spec = esper::testing::SmallSpec())
      : spec_(std::move(spec)) {}

  void SetUp() override {
    std::filesystem::remove_all(checkpoints_);
    ServerOptions options;
    options.address = "127.0.0.1:0";
    options.spec = spec_;
    options.init_seed = 3;
    options.checkpoint_dir = checkpoints_.string();
    options.streams.graph_timeout = absl::Milliseconds(800);
    options.streams.max_open_evaluations = 2;
    Configure(options);
    auto server = Server::Create(options);
    ASSERT_OK(server);
    server_ = *std::move(server);
    channel_ =
        grpc::CreateChannel("127.0.0.1:" + std::to_string(server_->port()),
                            grpc::InsecureChannelCredentials());
    training_ = v1::PolicyTraining::NewStub(channel_);
    admin_ = v1::PolicyAdmin::NewStub(channel_);
    auto lease = Acquire("test");
    ASSERT_OK(lease);
    token_ = lease->lease_token();
  }

  // Changes what the server is started with.
  virtual void Configure(ServerOptions& /*options*/) {}

  template <typename Request, typename Response, typename Stub>
  absl::StatusOr<Response> Call(
      Stub& stub,
      grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                   Response*),
      const Request& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::seconds(60));
    Response response;
    grpc::Status status = (stub.*method)(&context, request, &response);
    if (!status.ok()) return codec::DecodeStatus(status, context);
    return response;
  }

  absl::StatusOr<v1::AcquireLearnerResponse> Acquire(
      const std::string& holder) {
    v1::AcquireLearnerRequest request;
    request.set_holder(holder);
    return Call(*training_, &v1::PolicyTraining::Stub::AcquireLearner, request);
  }
  absl::StatusOr<v1::ForwardBackwardResponse> ForwardBackward(
      const v1::ForwardBackwardRequest& request) {
    return Call(*training_, &v1::PolicyTraining::Stub::ForwardBackward,
                request);
  }
  absl::StatusOr<v1::OptimStepResponse> OptimStep(bool publish) {
    v1::OptimStepRequest request;
    *request.mutable_write() = NextWrite();
    request.set_publish(publish);
    return Call(*training_, &v1::PolicyTraining::Stub::OptimStep, request);
  }
  absl::StatusOr<v1::SaveCheckpointResponse> Save(const std::string& name) {
    v1::SaveCheckpointRequest request;
    request.set_name(name);
    return Call(*admin_, &v1::PolicyAdmin::Stub::SaveCheckpoint, request);
  }
  absl::StatusOr<v1::RestoreCheckpointResponse> Restore(
      const std::string& name) {
    v1::RestoreCheckpointRequest request;
    request.set_name(name);
    return Call(*admin_, &v1::PolicyAdmin::Stub::RestoreCheckpoint, request);
  }
  v1::GetStatusResponse Status() {
    auto status = Call(*admin_, &v1::PolicyAdmin::Stub::GetStatus,
                       v1::GetStatusRequest());
    EXPECT_OK(status);
    return status.ok() ? *status : v1::GetStatusResponse();
  }

  v1::TrajectoryBatch Act(uint64_t seed, int episodes = 3) {
    return esper::testing::ActEpisodes(channel_, spec_, episodes, kSteps, seed);
  }
  v1::LearnerWrite NextWrite() {
    v1::LearnerWrite write;
    write.set_lease_token(token_);
    write.set_sequence(++sequence_);
    return write;
  }
  v1::ForwardBackwardRequest Ppo(v1::TrajectoryBatch batch) {
    v1::ForwardBackwardRequest request;
    *request.mutable_write() = NextWrite();
    *request.mutable_batch() = std::move(batch);
    request.mutable_ppo();
    request.set_first_pass(true);
    return request;
  }
  // Uploads `batch`, expects this refusal, and that it used up no number and
  // left no gradient behind.
  void ExpectRefused(v1::TrajectoryBatch batch, absl::StatusCode code,
                     const std::string& reason) {
    auto response = ForwardBackward(Ppo(std::move(batch)));
    EXPECT_THAT(response, esper::testing::Refused(code, reason));
    --sequence_;
    EXPECT_THAT(OptimStep(false),
                esper::testing::Refused(absl::StatusCode::kFailedPrecondition,
                                        "NOT_DIFFERENTIABLE"));
    --sequence_;
  }

  const policy::PolicySpec spec_;
  const std::filesystem::path checkpoints_ =
      std::filesystem::path(::testing::TempDir()) / "training_checkpoints";
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::PolicyTraining::Stub> training_;
  std::unique_ptr<v1::PolicyAdmin::Stub> admin_;
  int64_t token_ = 0;
  int64_t sequence_ = 0;
};

}  // namespace esper::server
#endif  // ESPER_TESTS_SERVER_TRAINING_SERVER_H_
