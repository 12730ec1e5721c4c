// The whole way of a policy with nothing but vector observations and plain
// choices: no categorical input, no masks, no drivers, no Q, no contribution
// predictor.

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "client/tensor.h"
#include "tests/server/training_server.h"

namespace esper::server {
namespace {

using ::esper::testing::Refused;
using Code = absl::StatusCode;

policy::PolicySpec PlainSpec(const std::vector<int64_t>& sizes) {
  policy::PolicySpec spec;
  spec.name = "plain";
  spec.observation = {{"observation", 4}};
  for (size_t k = 0; k < sizes.size(); ++k) {
    policy::HeadSpec head;
    head.name = "action" + std::to_string(k);
    head.size = sizes[k];
    spec.sampling_order.push_back(head.name);
    spec.heads.push_back(std::move(head));
  }
  spec.feature_dim = 16;
  spec.hidden_dim = 16;
  spec.mask_optional = true;
  return spec;
}

class PlainPolicyTest : public TrainingServerTest {
 protected:
  explicit PlainPolicyTest(const std::vector<int64_t>& sizes = {2})
      : TrainingServerTest(PlainSpec(sizes)) {}

  // Two updates of two passes each, the second on what the first published.
  void ExpectTrains() {
    for (int update = 0; update < 2; ++update) {
      const v1::TrajectoryBatch batch = Act(7 + update);
      auto pass = ForwardBackward(Ppo(batch));
      ASSERT_OK(pass);
      EXPECT_EQ(pass->transitions(), 3 * kSteps);
      EXPECT_EQ(pass->nonfinite_term(), "");
      ASSERT_TRUE(pass->has_ratio_check_max());
      EXPECT_LE(pass->ratio_check_max(), 1e-4);
      for (const auto& head : spec_.heads) {
        EXPECT_TRUE(std::isfinite(pass->metrics().at("entropy." + head.name)));
        EXPECT_EQ(pass->metrics().at("share_used." + head.name), 1);
      }
      EXPECT_EQ(pass->metrics().count("q"), 0);
      EXPECT_EQ(pass->metrics().count("contribution"), 0);
      auto step = OptimStep(false);
      ASSERT_OK(step);
      EXPECT_TRUE(step->stepped());

      auto again = Ppo(batch);
      again.set_first_pass(false);
      again.mutable_ppo()->set_target_kl(100);
      ASSERT_OK(ForwardBackward(again));
      step = OptimStep(true);
      ASSERT_OK(step);
      EXPECT_TRUE(step->published());
      EXPECT_EQ(step->header().policy_version(), 2 + update);
    }
  }
};

class MultiDiscretePolicyTest : public PlainPolicyTest {
 protected:
  MultiDiscretePolicyTest() : PlainPolicyTest({3, 300, 2}) {}
};

TEST_F(PlainPolicyTest, UploadsCarryOnlyWhatThePolicyHas) {
  const v1::TrajectoryBatch batch = Act(1);
  for (const v1::Trajectory& row : batch.trajectories()) {
    EXPECT_FALSE(row.has_categorical());
    EXPECT_FALSE(row.has_action_masks());
    EXPECT_FALSE(row.has_contribution_targets());
    EXPECT_EQ(client::DescribeTensor(row.actions()), "uint8 [6, 1]");
    EXPECT_EQ(client::DescribeTensor(row.behaviour().log_probs()),
              "float32 [6, 1]");
  }
  // The value of the final observation, without masks.
  EXPECT_EQ(batch.trajectories(0).end_kind(), v1::END_KIND_TRUNCATED);
  EXPECT_NE(batch.trajectories(0).bootstrap_value(), 0);
  EXPECT_EQ(batch.trajectories(1).bootstrap_value(), 0);
}

TEST_F(PlainPolicyTest, TrainsOverUpdates) { ExpectTrains(); }
TEST_F(MultiDiscretePolicyTest, TrainsOverUpdates) { ExpectTrains(); }

TEST_F(PlainPolicyTest, NeedsNeitherEffectiveChoicesNorForcedFlags) {
  v1::TrajectoryBatch batch = Act(1);
  for (v1::Trajectory& row : *batch.mutable_trajectories()) {
    row.clear_effective_choices();
    row.clear_forced();
  }
  EXPECT_OK(ForwardBackward(Ppo(batch)));
}

TEST_F(PlainPolicyTest, TotalsOfThePartsTrainAsTheWhole) {
  const v1::TrajectoryBatch batch = Act(1);
  v1::ForwardBackwardRequest request;
  *request.mutable_batch() = batch;
  request.mutable_ppo();
  request.set_totals_only(true);
  auto totals = ForwardBackward(request);
  ASSERT_OK(totals);
  EXPECT_EQ(totals->totals().valid_steps(), 3 * kSteps);
  auto pass = Ppo(batch);
  *pass.mutable_totals() = totals->totals();
  auto trained = ForwardBackward(pass);
  ASSERT_OK(trained);
  EXPECT_NEAR(trained->metrics().at("policy"), totals->metrics().at("policy"),
              1e-6);
}

TEST_F(PlainPolicyTest, TakesCotangentsOfAClientsOwnLoss) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::seconds(60));
  auto stream = training_->EvaluateActions(&context);
  v1::EvaluateActionsRequest request;
  request.mutable_evaluate()->set_evaluation_id(1);
  *request.mutable_evaluate()->mutable_batch() = Act(1);
  request.mutable_evaluate()->set_keep_graph(true);
  v1::EvaluateActionsResponse response;
  ASSERT_TRUE(stream->Write(request) && stream->Read(&response));
  ASSERT_TRUE(response.has_evaluation()) << response.ShortDebugString();
  const v1::EvaluatedNumbers numbers = response.evaluation().numbers();
  EXPECT_FALSE(numbers.has_q_values());
  EXPECT_FALSE(numbers.has_contributions());

  v1::Cotangents* cotangents = request.mutable_cotangents();
  *cotangents->mutable_write() = NextWrite();
  cotangents->set_evaluation_id(1);
  cotangents->set_trains_policy(true);
  *cotangents->mutable_log_probs() = numbers.log_probs();
  ASSERT_TRUE(stream->Write(request) && stream->Read(&response));
  ASSERT_TRUE(response.has_accumulated()) << response.ShortDebugString();
  EXPECT_GT(response.accumulated().gradient_norm(), 0);
  EXPECT_OK(OptimStep(true));
}

TEST_F(PlainPolicyTest, RestoresACheckpoint) {
  ASSERT_OK(Save("fresh"));
  ExpectTrains();
  ASSERT_OK(Restore("fresh"));
  EXPECT_EQ(Status().optimizer_steps(), 0);
  const auto lease = Acquire("test");
  ASSERT_OK(lease);
  token_ = lease->lease_token();
  sequence_ = 0;
  auto pass = ForwardBackward(Ppo(Act(20)));
  ASSERT_OK(pass);
  EXPECT_LE(pass->ratio_check_max(), 1e-4);
}

TEST_F(PlainPolicyTest, MasksMayBeSentAndAreThenObeyed) {
  v1::TrajectoryBatch batch = Act(1);
  v1::Trajectory* row = batch.mutable_trajectories(0);
  // Both choices allowed in every step: what an absent mask means.
  *row->mutable_action_masks() =
      client::PackTensor(std::vector<uint8_t>(kSteps, 3), {kSteps, 1});
  EXPECT_OK(ForwardBackward(Ppo(batch)));
  // Only the choice that was not taken in step 0.
  const uint8_t taken = row->actions().data()[0];
  (*row->mutable_action_masks()->mutable_data())[0] = taken == 0 ? 2 : 1;
  EXPECT_THAT(ForwardBackward(Ppo(batch)),
              Refused(Code::kInvalidArgument, "INVALID_ACTION"));
}

}  // namespace
}  // namespace esper::server
