// PolicyTraining of a real server over a real channel: lease and unary calls.

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "ATen/TensorOperators.h"
#include "absl/synchronization/notification.h"
#include "client/tensor.h"
#include "core/ppo/learner.h"
#include "tests/server/training_server.h"

namespace esper::server {
namespace {

using ::esper::testing::Refused;
using Code = absl::StatusCode;

using TrainingServiceTest = TrainingServerTest;

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

// A gradient of a loss, per parameter tensor, as the learner holds it.
ppo::NamedTensors GradientsOf(Server& server) {
  ppo::NamedTensors gradients;
  absl::Notification done;
  server.learner().Run(
      [&gradients](ppo::Learner& learner) {
        gradients = learner.Gradients();
        learner.ClearGradients();
        return absl::OkStatus();
      },
      [&done](const absl::Status&) { done.Notify(); });
  done.WaitForNotification();
  return gradients;
}

TEST_F(TrainingServiceTest, PartsOfABatchGiveTheGradientOfTheWhole) {
  v1::TrajectoryBatch batch = Act(1, /*episodes=*/4);
  // Rows of differing lengths.
  *batch.add_trajectories() =
      esper::testing::ActEpisodes(channel_, spec_, 1, 2 * kSteps, /*seed=*/7)
          .trajectories(0);
  using Change = void (*)(v1::ForwardBackwardRequest*);
  for (const Change loss : {
           Change([](v1::ForwardBackwardRequest* r) { r->mutable_ppo(); }),
           Change([](v1::ForwardBackwardRequest* r) {
             r->mutable_importance_sampling();
           }),
           Change([](v1::ForwardBackwardRequest* r) {
             r->mutable_behaviour_cloning();
           }),
       }) {
    auto whole = Ppo(batch);
    loss(&whole);
    whole.set_first_pass(false);
    ASSERT_OK(ForwardBackward(whole));
    const ppo::NamedTensors expected = GradientsOf(*server_);
    whole.set_totals_only(true);
    const auto totals = ForwardBackward(whole);
    ASSERT_OK(totals);
    for (const auto& [from, to] : {std::pair<int, int>{0, 1}, {1, 3}, {3, 5}}) {
      v1::TrajectoryBatch rows;
      for (int row = from; row < to; ++row) {
        *rows.add_trajectories() = batch.trajectories(row);
      }
      auto part = Ppo(rows);
      loss(&part);
      part.set_first_pass(false);
      *part.mutable_totals() = totals->totals();
      ASSERT_OK(ForwardBackward(part));
    }
    const ppo::NamedTensors gradients = GradientsOf(*server_);
    for (size_t i = 0; i < gradients.size(); ++i) {
      const double norm = expected[i].second.norm().item<double>();
      const double gap =
          (gradients[i].second - expected[i].second).norm().item<double>();
      EXPECT_LE(gap, 1e-6 * norm) << gradients[i].first;
    }
  }
}

TEST_F(TrainingServiceTest, EveryLossSaysWhatItUsed) {
  const v1::TrajectoryBatch batch = Act(1);
  auto request = Ppo(batch);
  request.mutable_importance_sampling()->set_rho_bar(0.5);
  auto importance = ForwardBackward(request);
  ASSERT_OK(importance);
  EXPECT_FALSE(importance->has_effective());
  const v1::ImportanceSamplingLoss& used =
      importance->effective_importance_sampling();
  EXPECT_EQ(used.rho_bar(), 0.5);
  EXPECT_EQ(used.c_bar(), 0.5);  // Never above rho_bar.
  EXPECT_EQ(used.gamma(), 0.995);
  EXPECT_EQ(used.max_version_lag(), 31);
  EXPECT_GT(importance->metrics().at("gradient_norm"), 0);

  request = Ppo(batch);
  request.mutable_behaviour_cloning();
  auto cloning = ForwardBackward(request);
  ASSERT_OK(cloning);
  EXPECT_TRUE(cloning->has_effective_behaviour_cloning());
  EXPECT_FALSE(cloning->has_ratio_check_max());

  const auto refused = [&](auto change) {
    auto bad = Ppo(batch);
    change(&bad);
    EXPECT_THAT(ForwardBackward(bad),
                Refused(Code::kInvalidArgument, "MALFORMED_REQUEST"));
    --sequence_;
  };
  using R = v1::ForwardBackwardRequest*;
  refused([](R r) { r->mutable_importance_sampling()->set_gamma(0); });
  refused([](R r) { r->mutable_importance_sampling()->set_c_bar(1.5); });
  refused(
      [](R r) { r->mutable_importance_sampling()->set_max_version_lag(128); });
  refused([](R r) {
    r->mutable_behaviour_cloning()->set_entropy_coef(std::nan(""));
  });
}

TEST_F(TrainingServiceTest, OldBehaviourIsImportanceWeighted) {
  const v1::TrajectoryBatch old = Act(1);
  for (int i = 0; i < 2; ++i) {
    ASSERT_OK(ForwardBackward(Ppo(Act(10 + i))));
    ASSERT_OK(OptimStep(true));
  }
  auto request = Ppo(old);
  request.mutable_importance_sampling();
  auto pass = ForwardBackward(request);
  ASSERT_OK(pass);
  EXPECT_EQ(pass->metrics().at("version_lag"), 2);
  ASSERT_OK(OptimStep(false));
}

TEST_F(TrainingServiceTest, ADrainingServerRefusesTraining) {
  auto request = Ppo(Act(1));
  server_->learner().Drain();
  EXPECT_THAT(ForwardBackward(request),
              Refused(Code::kUnavailable, "DRAINING"));
}

}  // namespace
}  // namespace esper::server
