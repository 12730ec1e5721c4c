// PolicyTraining.EvaluateActions of a real server over a real channel.

#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "client/tensor.h"
#include "core/policy/graph_bytes.h"
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
  // `field`: what the refusal must name; empty: anything.
  void ExpectRefusal(const v1::EvaluateActionsResponse& response,
                     const std::string& reason, const std::string& field = "") {
    ASSERT_TRUE(response.has_refusal()) << response.ShortDebugString();
    const absl::Status status = codec::DecodeRefusal(response.refusal());
    EXPECT_THAT(status, Refused(CodeOfReason(reason), reason));
    if (!field.empty()) {
      EXPECT_EQ(codec::DetailOrDefault(status).field, field);
    }
  }
  // Memory is given back on the learner's thread, after the call is over.
  void WaitForGraphBytes(int64_t bytes) {
    const absl::Time end = absl::Now() + absl::Seconds(60);
    while (Status().graph_bytes() != bytes && absl::Now() < end) {
      absl::SleepFor(absl::Milliseconds(5));
    }
    EXPECT_EQ(Status().graph_bytes(), bytes);
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

TEST_F(EvaluateActionsTest, AnOptimiserStepIsABarrier) {
  const v1::TrajectoryBatch batch = Act(1);
  Open();
  const auto before = Evaluate(1, batch).evaluation();
  EXPECT_EQ(before.optimizer_steps(), 0);
  // Sent before the step: in it.
  ASSERT_TRUE(Exchange(SumOfLogProbs(1, before.numbers().log_probs()))
                  .has_accumulated());
  const auto open = Evaluate(2, batch).evaluation();
  EXPECT_EQ(open.numbers().log_probs().data(),
            before.numbers().log_probs().data());
  ASSERT_OK(OptimStep(false));
  // Made before it, answered after it: too late.
  ExpectRefusal(Exchange(SumOfLogProbs(2, open.numbers().log_probs())),
                "EVALUATION_EXPIRED");
  --sequence_;
  EXPECT_THAT(OptimStep(false),
              Refused(Code::kFailedPrecondition, "NOT_DIFFERENTIABLE"));
  --sequence_;
  // Made after it: the new weights.
  const auto after = Evaluate(3, batch).evaluation();
  EXPECT_EQ(after.optimizer_steps(), 1);
  EXPECT_NE(after.numbers().log_probs().data(),
            before.numbers().log_probs().data());
  ASSERT_TRUE(Exchange(SumOfLogProbs(3, after.numbers().log_probs()))
                  .has_accumulated());
}

TEST_F(EvaluateActionsTest, ARepeatedNumberAccumulatesOnce) {
  const v1::TrajectoryBatch batch = Act(1);
  Open();
  const auto request =
      SumOfLogProbs(1, Evaluate(1, batch).evaluation().numbers().log_probs());
  const auto first = Exchange(request);
  ASSERT_TRUE(first.has_accumulated());
  const auto again = Exchange(request);
  ASSERT_TRUE(again.has_accumulated()) << again.ShortDebugString();
  EXPECT_EQ(first.accumulated().gradient_norm(),
            again.accumulated().gradient_norm());
}

TEST_F(EvaluateActionsTest, AStepThatIsNotFiniteIsNamedAndChangesNothing) {
  const v1::TrajectoryBatch batch = Act(1);
  Open();
  // Each gradient is finite, their sum is not.
  for (int64_t id = 1; id <= 8; ++id) {
    const v1::Tensor values =
        Evaluate(id, batch).evaluation().numbers().values();
    v1::EvaluateActionsRequest request;
    v1::Cotangents* cotangents = request.mutable_cotangents();
    *cotangents->mutable_write() = NextWrite();
    cotangents->set_evaluation_id(id);
    *cotangents->mutable_values() =
        client::PackTensor(std::vector<float>(3 * kSteps, 3e36f), {3, kSteps});
    const auto response = Exchange(request);
    ASSERT_TRUE(response.has_accumulated()) << response.ShortDebugString();
  }
  const auto step = OptimStep(true);
  ASSERT_OK(step);
  EXPECT_FALSE(step->stepped());
  EXPECT_FALSE(step->published());
  EXPECT_EQ(step->nonfinite_tensor().rfind("state_value_head.", 0), 0)
      << step->nonfinite_tensor();
  EXPECT_EQ(step->weights_change_l2(), 0);
  EXPECT_EQ(step->optimizer_steps(), 0);
  EXPECT_EQ(Status().header().policy_version(), 1);
}

TEST_F(EvaluateActionsTest, AnIdleGraphEndsTheStream) {
  Open();
  ASSERT_TRUE(Evaluate(1, Act(1)).has_evaluation());
  v1::EvaluateActionsResponse response;
  EXPECT_FALSE(stream_->Read(&response));  // Ended by the server.
  EXPECT_THAT(codec::DecodeStatus(stream_->Finish(), *context_),
              Refused(Code::kFailedPrecondition, "EVALUATION_EXPIRED"));
  EXPECT_EQ(Status().open_evaluations(), 0);
  WaitForGraphBytes(0);
}

TEST_F(EvaluateActionsTest, AnIdThatNoEvaluationHasIsNotDifferentiable) {
  const v1::TrajectoryBatch batch = Act(1);
  Open();
  const v1::Tensor log_probs =
      Evaluate(7, batch).evaluation().numbers().log_probs();
  // Unset, not a number, steps that GetAction answered, an id to come.
  for (const int64_t id : {0, -1, 1, kSteps - 1, 8}) {
    ExpectRefusal(Exchange(SumOfLogProbs(id, log_probs)), "NOT_DIFFERENTIABLE",
                  "evaluation_id");
    --sequence_;
  }
  ASSERT_TRUE(Exchange(SumOfLogProbs(7, log_probs)).has_accumulated());
}

// A client that declares a policy term must send it, whatever else it sends;
// one that declares none may train the other outputs alone.
TEST_F(EvaluateActionsTest, APolicyTermMayNotGoMissing) {
  const v1::TrajectoryBatch batch = Act(1);
  Open();
  const v1::EvaluatedNumbers numbers =
      Evaluate(1, batch).evaluation().numbers();
  auto request = SumOfLogProbs(1, numbers.log_probs());
  v1::Cotangents* cotangents = request.mutable_cotangents();
  cotangents->clear_log_probs();
  *cotangents->mutable_values() =
      client::PackTensor(std::vector<float>(3 * kSteps, 1.0f), {3, kSteps});
  *cotangents->mutable_entropies() = numbers.entropies();
  ExpectRefusal(Exchange(request), "POLICY_TERM_MISSING", "log_probs");
  EXPECT_EQ(Status().open_evaluations(), 1);
  cotangents->set_trains_policy(false);
  const auto response = Exchange(request);
  ASSERT_TRUE(response.has_accumulated()) << response.ShortDebugString();
  EXPECT_GT(response.accumulated().gradient_norm(), 0);
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

  // And the other way round: a reader of evaluated numbers finds nothing.
  v1::EvaluatedNumbers swapped;
  ASSERT_TRUE(swapped.ParseFromString(
      Act(2).trajectories(0).behaviour().SerializeAsString()));
  EXPECT_NE(swapped.kind(), v1::NUMBER_KIND_EVALUATED);
  EXPECT_FALSE(swapped.has_log_probs());
  EXPECT_FALSE(swapped.has_entropies());
  EXPECT_FALSE(swapped.has_values());
}

// The bytes of numbers where cotangents belong are never taken for some.
TEST_F(EvaluateActionsTest, NumbersNeverParseAsCotangents) {
  const v1::TrajectoryBatch batch = Act(1);
  Open();
  const v1::EvaluatedNumbers numbers =
      Evaluate(1, batch).evaluation().numbers();
  v1::BehaviourNumbers behaviour = batch.trajectories(0).behaviour();
  *behaviour.mutable_entropies() = numbers.entropies();
  for (const std::string& bytes :
       {numbers.SerializeAsString(), behaviour.SerializeAsString()}) {
    v1::EvaluateActionsRequest request;
    ASSERT_TRUE(request.mutable_cotangents()->ParseFromString(bytes));
    EXPECT_TRUE(Exchange(request).has_refusal());
    // Not even with what only a writer knows.
    *request.mutable_cotangents()->mutable_write() = NextWrite();
    EXPECT_TRUE(Exchange(request).has_refusal());
    --sequence_;
  }
  EXPECT_EQ(Status().open_evaluations(), 1);
}

// Room for two graphs in a stream, and for three in all.
class GraphBudgetTest : public EvaluateActionsTest {
 protected:
  void Configure(ServerOptions& options) override {
    options.streams.graph_timeout = absl::Seconds(60);
    options.streams.max_open_evaluations = 8;
    options.streams.max_stream_graph_bytes = 2 * graph_ + graph_ / 2;
    options.streams.max_graph_bytes = 3 * graph_ + graph_ / 2;
  }

  // Of `Act(seed)`.
  const int64_t graph_ = policy::EvaluationGraphBytes(
      spec_, policy::TrainingPrecision::kFp32, 3, kSteps);
};

TEST_F(GraphBudgetTest, RefusesByBytesAndNamesTheBudget) {
  const v1::TrajectoryBatch batch = Act(1);
  Open();
  const v1::Tensor log_probs =
      Evaluate(1, batch).evaluation().numbers().log_probs();
  ASSERT_TRUE(Evaluate(2, batch).has_evaluation());
  EXPECT_EQ(Status().graph_bytes(), 2 * graph_);
  ExpectRefusal(Evaluate(3, batch), "BUDGET_EXCEEDED", "max_stream_graph_mb");
  // Numbers alone need no memory, and a refusal took none.
  ASSERT_TRUE(Evaluate(3, batch, /*keep_graph=*/false).has_evaluation());
  EXPECT_EQ(Status().graph_bytes(), 2 * graph_);

  auto first_context = std::move(context_);
  auto first_stream = std::move(stream_);
  Open();
  ASSERT_TRUE(Evaluate(1, batch).has_evaluation());
  ExpectRefusal(Evaluate(2, batch), "BUDGET_EXCEEDED", "max_graph_mb");

  // Cotangents make room, for others as well.
  std::swap(first_context, context_);
  std::swap(first_stream, stream_);
  ASSERT_TRUE(Exchange(SumOfLogProbs(1, log_probs)).has_accumulated());
  EXPECT_EQ(Status().graph_bytes(), 2 * graph_);
  std::swap(first_context, context_);
  std::swap(first_stream, stream_);
  ASSERT_TRUE(Evaluate(2, batch).has_evaluation());

  // So does the end of a stream, however it ends.
  first_context->TryCancel();
  WaitForGraphBytes(2 * graph_);
  ASSERT_TRUE(stream_->WritesDone());
  ASSERT_TRUE(stream_->Finish().ok());
  WaitForGraphBytes(0);
  EXPECT_EQ(Status().open_evaluations(), 0);
}

TEST_F(GraphBudgetTest, ABatchThatNeverFitsIsRefusedAndChangesNothing) {
  const v1::TrajectoryBatch batch = Act(1, /*episodes=*/300);
  Open();
  ExpectRefusal(Evaluate(1, batch), "BUDGET_EXCEEDED", "max_stream_graph_mb");
  EXPECT_EQ(Status().graph_bytes(), 0);
  ASSERT_TRUE(Evaluate(1, Act(2)).has_evaluation());  // Not even the id.
}

TEST_F(GraphBudgetTest, WeightsThatMovedGiveMemoryBack) {
  const v1::TrajectoryBatch batch = Act(1);
  Open();
  ASSERT_TRUE(Evaluate(1, batch).has_evaluation());
  ASSERT_TRUE(Evaluate(2, batch).has_evaluation());
  ASSERT_OK(ForwardBackward(Ppo(batch)));
  ASSERT_OK(OptimStep(false));
  ASSERT_TRUE(Evaluate(3, batch).has_evaluation());
  EXPECT_EQ(Status().graph_bytes(), graph_);
}

}  // namespace
}  // namespace esper::server
