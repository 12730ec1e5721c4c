// PolicyTraining and PolicyAdmin of a real server over a real channel.

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "client/tensor.h"
#include "esper/v1/policy_admin.grpc.pb.h"
#include "esper/v1/policy_inference.grpc.pb.h"
#include "esper/v1/policy_training.grpc.pb.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "gtest/gtest.h"
#include "proto/codec/error_detail.h"
#include "server/server.h"
#include "tests/testing/rollout.h"
#include "tests/testing/status_matchers.h"

namespace esper::server {
namespace {

namespace fs = std::filesystem;
using ::esper::testing::IsOk;
using ::esper::testing::Refused;
using Code = absl::StatusCode;

constexpr int kSteps = 6;

void SetFloat(v1::Tensor* tensor, int64_t index, float value) {
  tensor->mutable_data()->replace(index * sizeof(float), sizeof(float),
                                  reinterpret_cast<const char*>(&value),
                                  sizeof(float));
}

class TrainingServiceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(checkpoints_);
    ServerOptions options;
    options.address = "127.0.0.1:0";
    options.spec = esper::testing::SmallSpec();
    options.init_seed = 3;
    options.checkpoint_dir = checkpoints_.string();
    options.streams.graph_timeout = absl::Milliseconds(800);
    options.streams.max_open_evaluations = 2;
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
    return esper::testing::ActEpisodes(channel_, esper::testing::SmallSpec(),
                                       episodes, kSteps, seed);
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
  void ExpectRefused(v1::TrajectoryBatch batch, Code code,
                     const std::string& reason) {
    auto response = ForwardBackward(Ppo(std::move(batch)));
    EXPECT_THAT(response, Refused(code, reason));
    --sequence_;
    EXPECT_THAT(OptimStep(false),
                Refused(Code::kFailedPrecondition, "NOT_DIFFERENTIABLE"));
    --sequence_;
  }

  const fs::path checkpoints_ =
      fs::path(::testing::TempDir()) / "training_checkpoints";
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::PolicyTraining::Stub> training_;
  std::unique_ptr<v1::PolicyAdmin::Stub> admin_;
  int64_t token_ = 0;
  int64_t sequence_ = 0;
};

TEST_F(TrainingServiceTest, AnUpdateChangesTheWeightsAndPublishesAVersion) {
  auto pass = ForwardBackward(Ppo(Act(1)));
  ASSERT_OK(pass);
  EXPECT_EQ(pass->transitions(), 3 * kSteps);
  ASSERT_TRUE(pass->has_ratio_check_max());
  EXPECT_LE(pass->ratio_check_max(), 1e-4);
  EXPECT_TRUE(std::isfinite(pass->metrics().at("total")));
  EXPECT_EQ(pass->header().policy_version(), 1);
  EXPECT_NEAR(pass->effective().gamma(), 0.995, 1e-9);

  auto step = OptimStep(true);
  ASSERT_OK(step);
  EXPECT_TRUE(step->stepped());
  EXPECT_TRUE(step->published());
  EXPECT_GT(step->weights_change_l2(), 0);
  EXPECT_EQ(step->header().policy_version(), 2);
  EXPECT_EQ(Status().publishes(), 1);
  EXPECT_EQ(Status().transitions_trained(), 3 * kSteps);

  // The new version acts, and agrees with the learner again.
  auto next = ForwardBackward(Ppo(Act(2)));
  ASSERT_OK(next);
  EXPECT_LE(next->ratio_check_max(), 1e-4);
  EXPECT_EQ(next->header().policy_version(), 2);
}

TEST_F(TrainingServiceTest, ARepeatedNumberGetsTheSameAnswerAndStepsOnce) {
  const auto request = Ppo(Act(1));
  auto first = ForwardBackward(request);
  ASSERT_OK(first);
  auto again = ForwardBackward(request);
  ASSERT_OK(again);
  EXPECT_EQ(first->totals().SerializeAsString(),
            again->totals().SerializeAsString());
  auto step = OptimStep(true);
  ASSERT_OK(step);
  --sequence_;
  auto repeated = OptimStep(true);
  ASSERT_OK(repeated);
  EXPECT_EQ(step->SerializeAsString(), repeated->SerializeAsString());
  EXPECT_EQ(Status().optimizer_steps(), 1);
  EXPECT_EQ(Status().header().policy_version(), 2);
}

TEST_F(TrainingServiceTest, ANumberThatAnotherCallUsedIsRefused) {
  ASSERT_OK(ForwardBackward(Ppo(Act(1))));
  --sequence_;  // The number of the pass, for a step.
  EXPECT_THAT(OptimStep(true),
              Refused(Code::kInvalidArgument, "MALFORMED_REQUEST"));
  EXPECT_EQ(Status().optimizer_steps(), 0);
}

TEST_F(TrainingServiceTest, APublishWithoutAStepMakesNoVersion) {
  EXPECT_OK(OptimStep(true));
  EXPECT_EQ(Status().header().policy_version(), 1);
  EXPECT_EQ(Status().publishes(), 0);
  // Steps taken before are published without a gradient of their own.
  ASSERT_OK(ForwardBackward(Ppo(Act(1))));
  ASSERT_OK(OptimStep(false));
  EXPECT_EQ(Status().unpublished_steps(), 1);
  auto published = OptimStep(true);
  ASSERT_OK(published);
  EXPECT_TRUE(published->published());
  EXPECT_EQ(published->header().policy_version(), 2);
  EXPECT_EQ(Status().unpublished_steps(), 0);
}

TEST_F(TrainingServiceTest, ASuccessorInheritsNoGradientAndChecksRatios) {
  // The first learner dies between two steps, with a gradient accumulated.
  ASSERT_OK(ForwardBackward(Ppo(Act(1))));
  ASSERT_OK(OptimStep(false));
  auto second_pass = Ppo(Act(2));
  second_pass.set_first_pass(false);
  ASSERT_OK(ForwardBackward(second_pass));

  auto lease = Acquire("test");
  ASSERT_OK(lease);
  token_ = lease->lease_token();
  sequence_ = 0;
  EXPECT_THAT(OptimStep(false),
              Refused(Code::kFailedPrecondition, "NOT_DIFFERENTIABLE"));
  --sequence_;
  // Version 1 still acts; its behaviour is checked against its own weights.
  auto pass = ForwardBackward(Ppo(Act(3)));
  ASSERT_OK(pass);
  ASSERT_TRUE(pass->has_ratio_check_max());
  EXPECT_LE(pass->ratio_check_max(), 1e-4);
}

TEST_F(TrainingServiceTest, OnlyTheLeaseHolderWrites) {
  EXPECT_THAT(Acquire("other"), Refused(Code::kAborted, "STALE_LEASE"));
  auto request = Ppo(Act(1));
  request.mutable_write()->set_lease_token(token_ + 1);
  EXPECT_THAT(ForwardBackward(request), Refused(Code::kAborted, "STALE_LEASE"));
  request.clear_write();
  EXPECT_THAT(ForwardBackward(request), Refused(Code::kAborted, "STALE_LEASE"));
  // Taken over by its own holder's successor: the old token is dead.
  auto taken = Acquire("test");
  ASSERT_OK(taken);
  EXPECT_GT(taken->lease_token(), token_);
  request = Ppo(Act(1));
  EXPECT_THAT(ForwardBackward(request), Refused(Code::kAborted, "STALE_LEASE"));

  v1::RenewLearnerRequest renew;
  renew.set_lease_token(taken->lease_token());
  EXPECT_OK(Call(*training_, &v1::PolicyTraining::Stub::RenewLearner, renew));
  v1::ReleaseLearnerRequest release;
  release.set_lease_token(taken->lease_token());
  EXPECT_OK(
      Call(*training_, &v1::PolicyTraining::Stub::ReleaseLearner, release));
  EXPECT_OK(Acquire("other"));
}

TEST_F(TrainingServiceTest, UnaryCallsNeedADeadline) {
  grpc::ClientContext context;
  v1::OptimStepResponse response;
  v1::OptimStepRequest request;
  *request.mutable_write() = NextWrite();
  grpc::Status status = training_->OptimStep(&context, request, &response);
  EXPECT_THAT(codec::DecodeStatus(status, context),
              Refused(Code::kInvalidArgument, "MALFORMED_REQUEST"));
}

TEST_F(TrainingServiceTest, BadUploadsAreRefusedAndLeaveNoTrace) {
  const v1::TrajectoryBatch good = Act(1);
  auto bad = [&good](auto change) {
    v1::TrajectoryBatch batch = good;
    change(batch.mutable_trajectories(1));
    return batch;
  };
  using T = v1::Trajectory*;
  const float nan = std::numeric_limits<float>::quiet_NaN();

  ExpectRefused(v1::TrajectoryBatch(), Code::kInvalidArgument,
                "MALFORMED_REQUEST");
  ExpectRefused(bad([](T t) { t->set_spec_digest("other"); }),
                Code::kFailedPrecondition, "SPEC_MISMATCH");
  ExpectRefused(bad([](T t) { t->set_end_kind(v1::END_KIND_UNSPECIFIED); }),
                Code::kInvalidArgument, "MALFORMED_REQUEST");
  ExpectRefused(bad([](T t) { t->set_end_kind(v1::END_KIND_ABORTED); }),
                Code::kInvalidArgument, "MALFORMED_REQUEST");
  ExpectRefused(
      bad([](T t) { t->mutable_observations()->mutable_data()->pop_back(); }),
      Code::kInvalidArgument, "BAD_SHAPE");
  ExpectRefused(bad([](T t) { t->clear_rewards(); }), Code::kInvalidArgument,
                "BAD_SHAPE");
  ExpectRefused(
      bad([](T t) { t->mutable_actions()->set_dtype(v1::DATA_TYPE_FLOAT32); }),
      Code::kInvalidArgument, "BAD_SHAPE");
  ExpectRefused(
      bad([nan](T t) { SetFloat(t->mutable_observations(), 5, nan); }),
      Code::kInvalidArgument, "NONFINITE_INPUT");
  ExpectRefused(bad([nan](T t) { SetFloat(t->mutable_rewards(), 2, nan); }),
                Code::kInvalidArgument, "NONFINITE_INPUT");
  ExpectRefused(bad([](T t) {
                  SetFloat(t->mutable_behaviour()->mutable_log_probs(), 7,
                           0.5f);
                }),
                Code::kInvalidArgument, "BAD_BEHAVIOUR");
  ExpectRefused(bad([](T t) {
                  t->mutable_behaviour()->set_kind(v1::NUMBER_KIND_UNSPECIFIED);
                }),
                Code::kInvalidArgument, "MALFORMED_REQUEST");
  // The op head is the last of eight: an op that does not exist.
  ExpectRefused(
      bad([](T t) { (*t->mutable_actions()->mutable_data())[7] = 17; }),
      Code::kInvalidArgument, "INVALID_ACTION");
  // A truncated episode says what its future is worth.
  {
    v1::TrajectoryBatch batch = good;
    ASSERT_EQ(batch.trajectories(0).end_kind(), v1::END_KIND_TRUNCATED);
    batch.mutable_trajectories(0)->clear_bootstrap_value();
    ExpectRefused(batch, Code::kInvalidArgument, "MALFORMED_REQUEST");
    batch.mutable_trajectories(0)->set_bootstrap_value(nan);
    ExpectRefused(batch, Code::kInvalidArgument, "NONFINITE_INPUT");
  }
  ExpectRefused(bad([nan](T t) {
                  SetFloat(t->mutable_behaviour()->mutable_values(), 1, nan);
                }),
                Code::kInvalidArgument, "NONFINITE_INPUT");
  // A blueprint that does not exist.
  ExpectRefused(
      bad([](T t) { (*t->mutable_categorical()->mutable_data())[0] = 99; }),
      Code::kInvalidArgument, "BAD_BLUEPRINT_INDEX");
  // Every mask bit off: no operation is allowed.
  ExpectRefused(bad([](T t) {
                  std::string* bits = t->mutable_action_masks()->mutable_data();
                  bits->assign(bits->size(), '\0');
                }),
                Code::kInvalidArgument, "EMPTY_ACTION_MASK");
  ExpectRefused(bad([](T t) {
                  *t->mutable_policy_versions() = client::PackTensor(
                      std::vector<int64_t>(kSteps, 99), {kSteps});
                }),
                Code::kFailedPrecondition, "UNKNOWN_VERSION");

  // The row is named.
  auto request =
      Ppo(bad([nan](T t) { SetFloat(t->mutable_rewards(), 2, nan); }));
  auto refused = ForwardBackward(request);
  --sequence_;
  ASSERT_FALSE(refused.ok());
  auto detail = DetailOf(refused.status());
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->row, 1);
  EXPECT_EQ(detail->step, 2);

  EXPECT_OK(ForwardBackward(Ppo(good)));
}

TEST_F(TrainingServiceTest, BehaviourThatIsNotThePolicysIsRefused) {
  v1::TrajectoryBatch batch = Act(1);
  // The op's log-prob of the first step, made far less likely than it was.
  SetFloat(
      batch.mutable_trajectories(0)->mutable_behaviour()->mutable_log_probs(),
      7, -9.0f);
  ExpectRefused(batch, Code::kFailedPrecondition, "BEHAVIOUR_MISMATCH");
}

TEST_F(TrainingServiceTest, OldBehaviourIsRefused) {
  const v1::TrajectoryBatch old = Act(1);
  for (int i = 0; i < 2; ++i) {
    ASSERT_OK(ForwardBackward(Ppo(Act(10 + i))));
    ASSERT_OK(OptimStep(true));
  }
  ExpectRefused(old, Code::kFailedPrecondition, "STALE_BEHAVIOUR");
}

TEST_F(TrainingServiceTest, CoefficientsOutsideTheirRangeAreRefused) {
  const v1::TrajectoryBatch batch = Act(1);
  auto refused = [&](auto change) {
    auto request = Ppo(batch);
    change(request.mutable_ppo());
    auto response = ForwardBackward(request);
    --sequence_;
    EXPECT_THAT(response, Refused(Code::kInvalidArgument, "MALFORMED_REQUEST"));
  };
  refused([](v1::PpoLoss* p) { p->set_gamma(1.5); });
  refused([](v1::PpoLoss* p) { p->set_clip_ratio(0); });
  refused([](v1::PpoLoss* p) { p->set_value_coef(-1); });
  refused([](v1::PpoLoss* p) { p->set_entropy_coef(std::nan("")); });
  auto no_loss = Ppo(batch);
  no_loss.clear_ppo();
  EXPECT_THAT(ForwardBackward(no_loss),
              Refused(Code::kInvalidArgument, "MALFORMED_REQUEST"));
}

// --- EvaluateActions -------------------------------------------------------

class EvaluateActionsTest : public TrainingServiceTest {
 protected:
  using Stream = grpc::ClientReaderWriter<v1::EvaluateActionsRequest,
                                          v1::EvaluateActionsResponse>;

  void Open() {
    context_ = std::make_unique<grpc::ClientContext>();
    context_->set_deadline(std::chrono::system_clock::now() +
                           std::chrono::seconds(60));
    stream_ = training_->EvaluateActions(context_.get());
  }
  v1::EvaluateActionsResponse Exchange(
      const v1::EvaluateActionsRequest& request) {
    v1::EvaluateActionsResponse response;
    EXPECT_TRUE(stream_->Write(request));
    EXPECT_TRUE(stream_->Read(&response));
    return response;
  }
  v1::EvaluateActionsResponse Evaluate(int64_t id,
                                       const v1::TrajectoryBatch& batch,
                                       bool keep_graph = true) {
    v1::EvaluateActionsRequest request;
    request.mutable_evaluate()->set_evaluation_id(id);
    *request.mutable_evaluate()->mutable_batch() = batch;
    request.mutable_evaluate()->set_keep_graph(keep_graph);
    return Exchange(request);
  }
  // Cotangents of the sum of all log-probs.
  v1::EvaluateActionsRequest SumOfLogProbs(int64_t id,
                                           const v1::Tensor& log_probs) {
    v1::EvaluateActionsRequest request;
    v1::Cotangents* cotangents = request.mutable_cotangents();
    *cotangents->mutable_write() = NextWrite();
    cotangents->set_evaluation_id(id);
    cotangents->set_trains_policy(true);
    const std::vector<int64_t> shape(log_probs.shape().begin(),
                                     log_probs.shape().end());
    *cotangents->mutable_log_probs() = client::PackTensor(
        std::vector<float>(shape[0] * shape[1] * shape[2], 1.0f), shape);
    return request;
  }
  void ExpectRefusal(const v1::EvaluateActionsResponse& response,
                     const std::string& reason) {
    ASSERT_TRUE(response.has_refusal()) << response.ShortDebugString();
    EXPECT_THAT(codec::DecodeRefusal(response.refusal()),
                Refused(CodeOfReason(reason), reason));
  }

  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<Stream> stream_;
};

TEST_F(EvaluateActionsTest, AgreesWithBehaviourAndTakesCotangentsOnce) {
  const v1::TrajectoryBatch batch = Act(1);
  Open();
  auto evaluated = Evaluate(1, batch);
  ASSERT_TRUE(evaluated.has_evaluation()) << evaluated.ShortDebugString();
  const v1::EvaluatedNumbers& numbers = evaluated.evaluation().numbers();
  EXPECT_EQ(numbers.kind(), v1::NUMBER_KIND_EVALUATED);
  const int64_t heads = esper::testing::SmallSpec().num_heads();
  auto now = client::UnpackTensor<float>(numbers.log_probs(),
                                         {3, kSteps, heads}, "log_probs");
  ASSERT_OK(now);
  for (int row = 0; row < 3; ++row) {
    auto then = client::UnpackTensor<float>(
        batch.trajectories(row).behaviour().log_probs(), {kSteps, heads},
        "behaviour");
    ASSERT_OK(then);
    for (size_t i = 0; i < then->size(); ++i) {
      EXPECT_NEAR((*now)[row * then->size() + i], (*then)[i], 1e-4);
    }
  }

  auto accumulated = Exchange(SumOfLogProbs(1, numbers.log_probs()));
  ASSERT_TRUE(accumulated.has_accumulated()) << accumulated.ShortDebugString();
  EXPECT_GT(accumulated.accumulated().gradient_norm(), 0);
  ExpectRefusal(Exchange(SumOfLogProbs(1, numbers.log_probs())),
                "NOT_DIFFERENTIABLE");
  --sequence_;
  auto step = OptimStep(true);
  ASSERT_OK(step);
  EXPECT_GT(step->weights_change_l2(), 0);
}

TEST_F(EvaluateActionsTest, MisuseIsARefusalAndTheStreamLives) {
  const v1::TrajectoryBatch batch = Act(1);
  Open();
  const v1::Tensor log_probs =
      Evaluate(1, batch).evaluation().numbers().log_probs();
  ExpectRefusal(Exchange(v1::EvaluateActionsRequest()), "MALFORMED_REQUEST");
  ExpectRefusal(Evaluate(1, batch), "MALFORMED_REQUEST");  // Not a new id.
  ExpectRefusal(Exchange(SumOfLogProbs(9, log_probs)), "NOT_DIFFERENTIABLE");
  --sequence_;

  auto no_policy_term = SumOfLogProbs(1, log_probs);
  no_policy_term.mutable_cotangents()->clear_log_probs();
  ExpectRefusal(Exchange(no_policy_term), "POLICY_TERM_MISSING");
  --sequence_;

  auto wrong_shape = SumOfLogProbs(1, log_probs);
  *wrong_shape.mutable_cotangents()->mutable_log_probs() =
      client::PackTensor(std::vector<float>{1}, {1, 1, 1});
  ExpectRefusal(Exchange(wrong_shape), "BAD_SHAPE");
  --sequence_;

  auto stale = SumOfLogProbs(1, log_probs);
  stale.mutable_cotangents()->mutable_write()->set_lease_token(token_ + 5);
  ExpectRefusal(Exchange(stale), "STALE_LEASE");
  --sequence_;

  // Made without a graph: numbers only.
  ASSERT_TRUE(Evaluate(2, batch, /*keep_graph=*/false).has_evaluation());
  ExpectRefusal(Exchange(SumOfLogProbs(2, log_probs)), "NOT_DIFFERENTIABLE");
  --sequence_;

  // The budget of graphs is two.
  ASSERT_TRUE(Evaluate(3, batch).has_evaluation());
  ExpectRefusal(Evaluate(4, batch), "BUDGET_EXCEEDED");

  ASSERT_TRUE(Exchange(SumOfLogProbs(1, log_probs)).has_accumulated());
}

TEST_F(EvaluateActionsTest, CotangentsThatAreNotFiniteAreRefused) {
  const v1::TrajectoryBatch batch = Act(1);
  Open();
  const v1::Tensor log_probs =
      Evaluate(1, batch).evaluation().numbers().log_probs();
  auto request = SumOfLogProbs(1, log_probs);
  SetFloat(request.mutable_cotangents()->mutable_log_probs(), 3,
           std::numeric_limits<float>::infinity());
  ExpectRefusal(Exchange(request), "NONFINITE_INPUT");
  --sequence_;
  ASSERT_TRUE(Exchange(SumOfLogProbs(1, log_probs)).has_accumulated());
}

TEST_F(EvaluateActionsTest, AnEvaluationOfAnotherStreamIsNotDifferentiable) {
  const v1::TrajectoryBatch batch = Act(1);
  Open();
  const v1::Tensor log_probs =
      Evaluate(1, batch).evaluation().numbers().log_probs();
  auto first_context = std::move(context_);
  auto first_stream = std::move(stream_);
  Open();
  ExpectRefusal(Exchange(SumOfLogProbs(1, log_probs)), "NOT_DIFFERENTIABLE");
}

TEST_F(EvaluateActionsTest, WeightsThatMovedExpireAnEvaluation) {
  const v1::TrajectoryBatch batch = Act(1);
  Open();
  const v1::Tensor log_probs =
      Evaluate(1, batch).evaluation().numbers().log_probs();
  ASSERT_OK(ForwardBackward(Ppo(batch)));
  ASSERT_OK(OptimStep(false));
  ExpectRefusal(Exchange(SumOfLogProbs(1, log_probs)), "EVALUATION_EXPIRED");
  --sequence_;
  EXPECT_EQ(Status().open_evaluations(), 0);
  // Dead graphs do not eat up the budget of two.
  for (int id = 2; id < 6; ++id) {
    ASSERT_TRUE(Evaluate(id, batch).has_evaluation()) << id;
    ASSERT_OK(ForwardBackward(Ppo(batch)));
    ASSERT_OK(OptimStep(false));
  }
}

TEST_F(EvaluateActionsTest, AnIdleGraphEndsTheStream) {
  Open();
  ASSERT_TRUE(Evaluate(1, Act(1)).has_evaluation());
  v1::EvaluateActionsResponse response;
  EXPECT_FALSE(stream_->Read(&response));  // Ended by the server.
  EXPECT_THAT(codec::DecodeStatus(stream_->Finish(), *context_),
              Refused(Code::kFailedPrecondition, "EVALUATION_EXPIRED"));
}

TEST_F(EvaluateActionsTest, BehaviourNumbersNeverParseAsEvaluatedOnes) {
  v1::TrajectoryBatch batch = Act(1);
  Open();
  const v1::EvaluatedNumbers numbers =
      Evaluate(1, batch).evaluation().numbers();
  // The bytes of an evaluation in place of what GetAction returned.
  ASSERT_TRUE(
      batch.mutable_trajectories(0)->mutable_behaviour()->ParseFromString(
          numbers.SerializeAsString()));
  ExpectRefusal(Evaluate(2, batch), "MALFORMED_REQUEST");
}

// --- PolicyAdmin -----------------------------------------------------------

TEST_F(TrainingServiceTest, ACheckpointBringsBackWeightsAndVersion) {
  ASSERT_OK(ForwardBackward(Ppo(Act(1))));
  ASSERT_OK(OptimStep(true));
  auto saved = Save("");
  ASSERT_OK(saved);
  EXPECT_EQ(saved->name(), "v2-s1");
  const v1::TrajectoryBatch acted = Act(5);

  ASSERT_OK(ForwardBackward(Ppo(Act(2))));
  ASSERT_OK(OptimStep(true));
  EXPECT_EQ(Status().header().policy_version(), 3);

  auto restored = Restore("v2-s1");
  ASSERT_OK(restored);
  // Whoever held the lease is overruled, and must take it again.
  EXPECT_THAT(OptimStep(true), Refused(Code::kAborted, "STALE_LEASE"));
  auto lease = Acquire("test");
  ASSERT_OK(lease);
  EXPECT_GT(lease->lease_token(), token_);
  token_ = lease->lease_token();
  sequence_ = 0;
  EXPECT_EQ(restored->optimizer_steps(), 1);
  EXPECT_EQ(restored->header().policy_version(), 2);
  // What version 2 did is the policy's behaviour again, to rounding.
  auto pass = ForwardBackward(Ppo(acted));
  ASSERT_OK(pass);
  EXPECT_LE(pass->ratio_check_max(), 1e-4);
}

TEST_F(TrainingServiceTest, ANewServerStartsFromTheLatestCheckpoint) {
  ASSERT_OK(ForwardBackward(Ppo(Act(1))));
  ASSERT_OK(OptimStep(true));
  ASSERT_OK(Save("mine"));
  ServerOptions options;
  options.address = "";
  options.spec = esper::testing::SmallSpec();
  options.init_seed = 99;
  options.checkpoint_dir = checkpoints_.string();
  options.restore = "latest";
  auto second = Server::Create(options);
  ASSERT_OK(second);
  EXPECT_EQ((*second)->policies().version(), 2);

  EXPECT_GE((*second)->learner().lease().Token(), token_);

  // Another policy's checkpoint is refused.
  policy::NetworkGrowingOptions other;
  other.hidden_dim = 24;
  options.spec = policy::PolicySpec::NetworkGrowing(other);
  EXPECT_THAT(Server::Create(options),
              Refused(Code::kFailedPrecondition, "SPEC_MISMATCH"));
}

TEST_F(TrainingServiceTest, BadCheckpointsAreRefusedAndChangeNothing) {
  EXPECT_THAT(Restore("latest"),
              Refused(Code::kNotFound, "UNKNOWN_CHECKPOINT"));
  EXPECT_THAT(Restore("../etc"),
              Refused(Code::kInvalidArgument, "MALFORMED_REQUEST"));
  EXPECT_THAT(Save("a/b"),
              Refused(Code::kInvalidArgument, "MALFORMED_REQUEST"));
  ASSERT_OK(Save("whole"));
  ASSERT_OK(ForwardBackward(Ppo(Act(1))));
  ASSERT_OK(OptimStep(true));
  fs::resize_file(checkpoints_ / "whole" / "learner.safetensors", 1000);
  EXPECT_THAT(Restore("whole"), Refused(Code::kDataLoss, "CORRUPT_CHECKPOINT"));
  EXPECT_EQ(Status().header().policy_version(), 2);
  EXPECT_OK(ForwardBackward(Ppo(Act(2))));
}

TEST_F(TrainingServiceTest, WithoutAFolderCheckpointsAreRefused) {
  ServerOptions options;
  options.address = "";
  options.spec = esper::testing::SmallSpec();
  auto server = Server::Create(options);
  ASSERT_OK(server);
  auto admin = v1::PolicyAdmin::NewStub((*server)->InProcessChannel());
  EXPECT_THAT(Call(*admin, &v1::PolicyAdmin::Stub::SaveCheckpoint,
                   v1::SaveCheckpointRequest()),
              Refused(Code::kFailedPrecondition, "NO_CHECKPOINT_FOLDER"));
}

TEST_F(TrainingServiceTest, ADrainingServerRefusesTraining) {
  auto request = Ppo(Act(1));
  server_->learner().Drain();
  EXPECT_THAT(ForwardBackward(request),
              Refused(Code::kUnavailable, "DRAINING"));
}

TEST_F(TrainingServiceTest, StatusTellsWhatWasDone) {
  ASSERT_OK(ForwardBackward(Ppo(Act(1))));
  ASSERT_OK(Save("one"));
  const v1::GetStatusResponse status = Status();
  EXPECT_EQ(status.learner_holder(), "test");
  EXPECT_EQ(status.actions_served(), 3 * kSteps);
  EXPECT_GE(status.ratio_check_max(), 0);
  EXPECT_EQ(status.device(), "cpu");
  EXPECT_FALSE(status.draining());
  ASSERT_EQ(status.checkpoints_size(), 1);
  EXPECT_EQ(status.checkpoints(0), "one");
}

}  // namespace
}  // namespace esper::server
