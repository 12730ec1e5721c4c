// PolicyTraining.EvaluateActions of a real server over a real channel.

#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client/tensor.h"
#include "tests/server/training_server.h"

namespace esper::server {
namespace {

using ::esper::testing::Refused;
using Code = absl::StatusCode;

class EvaluateActionsTest : public TrainingServerTest {
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

}  // namespace
}  // namespace esper::server
