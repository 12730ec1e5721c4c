// PolicyTraining.UpdatePolicy of a real server over a real channel.

#include "server/whole_update.h"

#include <chrono>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "client/trainer/policy_update.h"
#include "client/training_client.h"
#include "core/ppo/learner.h"
#include "google/protobuf/util/message_differencer.h"
#include "tests/server/training_server.h"

namespace esper::server {
namespace {

using ::esper::testing::Refused;
using Code = absl::StatusCode;

// Everything the learner of a server is.
ppo::LearnerState StateOf(Server& server) {
  ppo::LearnerState state;
  absl::Notification done;
  server.learner().Run(
      [&state](ppo::Learner& learner) {
        state = learner.Save();
        return absl::OkStatus();
      },
      [&done](const absl::Status&) { done.Notify(); });
  done.WaitForNotification();
  return state;
}

void ExpectSameTensors(const ppo::LearnerState& actual,
                       const ppo::LearnerState& expected) {
  ASSERT_EQ(actual.tensors.size(), expected.tensors.size());
  for (size_t i = 0; i < actual.tensors.size(); ++i) {
    EXPECT_EQ(actual.tensors[i].first, expected.tensors[i].first);
    EXPECT_TRUE(actual.tensors[i].second.equal(expected.tensors[i].second))
        << actual.tensors[i].first;
  }
}

void ExpectSame(const ppo::LearnerState& actual,
                const ppo::LearnerState& expected) {
  EXPECT_EQ(actual.json, expected.json);
  ExpectSameTensors(actual, expected);
}

// What a call of UpdatePolicy sent.
struct Answers {
  std::vector<v1::UpdateProgress> progress;
  v1::UpdateResult result;
  int results = 0;
};

class UpdatePolicyTest : public TrainingServerTest {
 protected:
  v1::UpdatePolicyRequest Request(v1::TrajectoryBatch batch) {
    v1::UpdatePolicyRequest request;
    *request.mutable_write() = NextWrite();
    *request.mutable_batch() = std::move(batch);
    request.mutable_ppo()->set_target_kl(0);  // Never stops early.
    return request;
  }

  absl::StatusOr<Answers> Update(const v1::UpdatePolicyRequest& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::minutes(5));
    auto reader = training_->UpdatePolicy(&context, request);
    Answers answers;
    v1::UpdatePolicyResponse response;
    while (reader->Read(&response)) {
      if (response.has_progress()) {
        EXPECT_EQ(answers.results, 0) << "the result comes last";
        answers.progress.push_back(response.progress());
      } else if (response.has_result()) {
        answers.result = response.result();
        ++answers.results;
      }
    }
    const grpc::Status status = reader->Finish();
    if (!status.ok()) return codec::DecodeStatus(status, context);
    EXPECT_EQ(answers.results, 1);
    return answers;
  }
};

// The same update by the coordinator's loop over single calls, on a server that
// began alike.
struct LoopCase {
  const char* name;
  int passes;
  int minibatches;
  double target_kl;
};

class UpdateLoopTest : public UpdatePolicyTest,
                       public ::testing::WithParamInterface<LoopCase> {};

TEST_P(UpdateLoopTest, GivesTheWeightsOfTheCoordinatorsLoop) {
  ServerOptions options;
  options.address = "127.0.0.1:0";
  options.spec = spec_;
  options.init_seed = 3;
  auto other = Server::Create(options);
  ASSERT_OK(other);
  const v1::TrajectoryBatch batch = Act(1, /*episodes=*/5);

  client::UpdateOptions loop;
  loop.passes = GetParam().passes;
  loop.minibatches = GetParam().minibatches;
  loop.seed = 77;
  loop.loss.set_target_kl(GetParam().target_kl);
  loop.learning_rate = 0.003;
  loop.max_grad_norm = 0.5;
  std::vector<client::FinishedEpisode> episodes;
  for (const v1::Trajectory& trajectory : batch.trajectories()) {
    episodes.emplace_back();
    episodes.back().trajectory = trajectory;
  }
  client::TrainingClient training(
      grpc::CreateChannel("127.0.0.1:" + std::to_string((*other)->port()),
                          grpc::InsecureChannelCredentials()));
  ASSERT_OK(training.AcquireLearner("loop"));
  client::PolicyUpdate expected(training, loop, /*version=*/1);
  ASSERT_OK(expected.Run(episodes));
  if (expected.unpublished_steps()) {
    v1::OptimStepRequest publish;
    publish.set_publish(true);
    ASSERT_OK(training.OptimStep(publish));
  }

  auto request = Request(batch);
  request.mutable_ppo()->set_target_kl(GetParam().target_kl);
  request.set_passes(loop.passes);
  request.set_minibatches(loop.minibatches);
  request.set_seed(loop.seed);
  request.set_learning_rate(*loop.learning_rate);
  request.set_max_grad_norm(*loop.max_grad_norm);
  const auto answers = Update(request);
  ASSERT_OK(answers);
  const v1::UpdateResult& result = answers->result;
  const client::UpdateReport& report = expected.report();
  EXPECT_EQ(result.passes(), report.passes);
  EXPECT_EQ(result.optimizer_steps(), report.optimizer_steps);
  EXPECT_EQ(result.kl_stopped(), report.kl_stopped);
  EXPECT_EQ(result.kl_stopped(), GetParam().target_kl > 0);
  EXPECT_EQ(result.approx_kl(), report.approx_kl);
  EXPECT_EQ(result.transitions(), report.transitions);
  EXPECT_EQ(result.gradient_norm(), report.gradient_norm);
  EXPECT_EQ(result.weights_change_l2(), report.weights_change_l2);
  EXPECT_EQ(result.ratio_check_max(), report.ratio_check_max);
  EXPECT_EQ(result.metrics().size(), report.metrics.size());
  EXPECT_EQ(result.anomalies().size(), report.anomalies.size());
  EXPECT_TRUE(result.published());
  EXPECT_EQ(result.header().policy_version(), 2);
  EXPECT_EQ(result.nonfinite_size(), 0);

  EXPECT_EQ(Status().publishes(), 1);
  EXPECT_EQ(Status().header().policy_version(), 2);
  ExpectSame(StateOf(*server_), StateOf(**other));
}

INSTANTIATE_TEST_SUITE_P(Shapes, UpdateLoopTest,
                         ::testing::Values(LoopCase{"whole", 3, 1, 0},
                                           LoopCase{"minibatches", 3, 2, 0},
                                           LoopCase{"single", 2, 9, 0},
                                           LoopCase{"stopped", 50, 1, 1e-5}),
                         [](const auto& info) {
                           return std::string(info.param.name);
                         });

TEST_F(UpdatePolicyTest, ReportsEveryMinibatch) {
  auto request = Request(Act(1, 4));
  request.set_passes(2);
  request.set_minibatches(2);
  const auto answers = Update(request);
  ASSERT_OK(answers);
  // Fewer than the stream keeps, so that none is dropped.
  ASSERT_EQ(answers->progress.size(), 5);
  EXPECT_EQ(answers->progress[0].pass(), -1);
  EXPECT_FALSE(answers->progress[0].has_optim_step());
  for (int i = 1; i < 5; ++i) {
    const v1::UpdateProgress& progress = answers->progress[i];
    EXPECT_EQ(progress.pass(), (i - 1) / 2);
    EXPECT_EQ(progress.minibatch(), (i - 1) % 2);
    EXPECT_GT(progress.forward_backward().metrics().at("gradient_norm"), 0);
    EXPECT_TRUE(progress.optim_step().stepped());
    EXPECT_EQ(progress.optim_step().optimizer_steps(), i);
    // Nothing is published before the end.
    EXPECT_EQ(progress.optim_step().header().policy_version(), 1);
  }
  EXPECT_EQ(answers->result.header().policy_version(), 2);
}

TEST_F(UpdatePolicyTest, ARepeatedNumberGetsTheResultAndUpdatesOnce) {
  const auto request = Request(Act(1));
  const auto first = Update(request);
  ASSERT_OK(first);
  const ppo::LearnerState after = StateOf(*server_);
  const auto again = Update(request);
  ASSERT_OK(again);
  EXPECT_TRUE(again->progress.empty());
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(
      again->result, first->result));
  ExpectSame(StateOf(*server_), after);
  EXPECT_EQ(Status().publishes(), 1);
  // The number belongs to this call.
  --sequence_;
  EXPECT_THAT(OptimStep(true),
              Refused(Code::kInvalidArgument, "MALFORMED_REQUEST"));
  EXPECT_OK(OptimStep(true));
}

TEST_F(UpdatePolicyTest, ACancelledUpdateLeavesNoTrace) {
  // In the middle of an update by single calls, so that there is more to keep
  // than the published version.
  ASSERT_OK(ForwardBackward(Ppo(Act(1))));
  ASSERT_OK(OptimStep(false));
  auto pass = Ppo(Act(2));
  pass.set_first_pass(false);
  ASSERT_OK(ForwardBackward(pass));
  const ppo::LearnerState before = StateOf(*server_);

  auto request = Request(Act(3));
  request.set_passes(1000);
  request.set_minibatches(3);
  {
    grpc::ClientContext context;
    auto reader = training_->UpdatePolicy(&context, request);
    v1::UpdatePolicyResponse response;
    // Some steps in.
    while (response.progress().optim_step().optimizer_steps() < 3) {
      ASSERT_TRUE(reader->Read(&response));
    }
    context.TryCancel();
    while (reader->Read(&response)) EXPECT_FALSE(response.has_result());
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  ExpectSame(StateOf(*server_), before);
  EXPECT_EQ(Status().header().policy_version(), 1);
  EXPECT_EQ(Status().publishes(), 0);
  EXPECT_EQ(Status().optimizer_steps(), 1);

  // Its number is free, and the learner works.
  request.set_passes(1);
  const auto answers = Update(request);
  ASSERT_OK(answers);
  EXPECT_EQ(answers->result.header().policy_version(), 2);
}

TEST_F(UpdatePolicyTest, AnUpdateThatIsNotFiniteIsTakenBackAndNamed) {
  const ppo::LearnerState before = StateOf(*server_);
  const v1::TrajectoryBatch batch = Act(1);
  for (int i = 0; i < 2; ++i) {
    auto request = Request(batch);
    request.set_learning_rate(1e30);
    request.set_passes(4);
    const auto answers = Update(request);
    ASSERT_OK(answers);
    EXPECT_GE(answers->result.nonfinite_size(), 1);
    EXPECT_TRUE(answers->result.rolled_back());
    EXPECT_FALSE(answers->result.published());
    EXPECT_EQ(answers->result.optimizer_steps(), 0);
    EXPECT_EQ(answers->result.header().policy_version(), 1);
    ExpectSameTensors(StateOf(*server_), before);
  }
  EXPECT_EQ(Status().publishes(), 0);
  // Sane settings go on from there.
  EXPECT_OK(Update(Request(batch)));
  EXPECT_EQ(Status().header().policy_version(), 2);
}

// A learner that skips what is not finite, and goes on with the update.
class SkippingLearnerTest : public UpdatePolicyTest {
 protected:
  void Configure(ServerOptions& options) override {
    options.learner.rollback_failed_updates = false;
  }
};

TEST_F(SkippingLearnerTest, AnUpdateThatFailsHalfWayLeavesNoTrace) {
  const ppo::LearnerState before = StateOf(*server_);
  auto request = Request(Act(1));
  request.set_learning_rate(1e30);
  request.set_passes(10);
  // One step, then three passes in a row that are not finite.
  EXPECT_THAT(Update(request),
              Refused(Code::kFailedPrecondition, "TRAINING_DIVERGED"));
  --sequence_;
  ExpectSame(StateOf(*server_), before);
  EXPECT_EQ(Status().publishes(), 0);
  EXPECT_EQ(Status().optimizer_steps(), 0);
  EXPECT_OK(Update(Request(Act(2))));
  EXPECT_EQ(Status().header().policy_version(), 2);
}

TEST_F(UpdatePolicyTest, RefusesWhatTheSingleCallsRefuse) {
  const v1::TrajectoryBatch batch = Act(1);
  const ppo::LearnerState before = StateOf(*server_);
  const auto refused = [&](Code code, const char* reason, auto change) {
    auto request = Request(batch);
    change(&request);
    EXPECT_THAT(Update(request), Refused(code, reason));
    --sequence_;
  };
  using R = v1::UpdatePolicyRequest*;
  const Code invalid = Code::kInvalidArgument;
  refused(invalid, "MALFORMED_REQUEST", [](R r) { r->clear_ppo(); });
  refused(invalid, "MALFORMED_REQUEST", [](R r) { r->clear_batch(); });
  refused(invalid, "MALFORMED_REQUEST", [](R r) { r->set_passes(0); });
  refused(invalid, "MALFORMED_REQUEST", [](R r) { r->set_passes(1001); });
  refused(invalid, "MALFORMED_REQUEST", [](R r) { r->set_minibatches(0); });
  refused(invalid, "MALFORMED_REQUEST", [](R r) { r->set_learning_rate(0); });
  refused(invalid, "MALFORMED_REQUEST",
          [](R r) { r->set_max_grad_norm(std::nan("")); });
  refused(invalid, "MALFORMED_REQUEST",
          [](R r) { r->mutable_ppo()->set_gamma(2); });
  refused(invalid, "MALFORMED_REQUEST",
          [](R r) { r->set_profile(static_cast<v1::Profile>(9)); });
  refused(Code::kAborted, "STALE_LEASE",
          [this](R r) { r->mutable_write()->set_lease_token(token_ + 1); });
  refused(Code::kFailedPrecondition, "SPEC_MISMATCH", [](R r) {
    r->mutable_batch()->mutable_trajectories(2)->set_spec_digest("other");
  });
  refused(Code::kFailedPrecondition, "BEHAVIOUR_MISMATCH", [](R r) {
    SetFloat(r->mutable_batch()
                 ->mutable_trajectories(0)
                 ->mutable_behaviour()
                 ->mutable_log_probs(),
             7, -9.0f);
  });
  ExpectSame(StateOf(*server_), before);
}

TEST_F(UpdatePolicyTest, MakesUpdatesWithTheOtherLosses) {
  auto request = Request(Act(1));
  request.mutable_importance_sampling()->set_rho_bar(2);
  request.set_minibatches(2);
  const auto importance = Update(request);
  ASSERT_OK(importance);
  EXPECT_EQ(importance->result.optimizer_steps(), 6);
  EXPECT_EQ(importance->progress[1]
                .forward_backward()
                .effective_importance_sampling()
                .rho_bar(),
            2);
  EXPECT_EQ(importance->result.header().policy_version(), 2);

  // Demonstrations: nothing but what was seen and done.
  request = Request(Act(2));
  request.mutable_behaviour_cloning();
  for (v1::Trajectory& row : *request.mutable_batch()->mutable_trajectories()) {
    row.clear_behaviour();
    row.clear_rewards();
    row.clear_policy_versions();
    row.clear_end_kind();
    row.clear_bootstrap_value();
  }
  const auto cloning = Update(request);
  ASSERT_OK(cloning);
  EXPECT_EQ(cloning->result.optimizer_steps(), 3);
  EXPECT_FALSE(cloning->result.has_ratio_check_max());
  EXPECT_EQ(cloning->result.header().policy_version(), 3);
}

TEST_F(UpdatePolicyTest, TheClientNumbersItAndHearsOfProgress) {
  client::TrainingClient training(channel_);
  ASSERT_OK(training.AcquireLearner("test"));
  v1::UpdatePolicyRequest request;
  *request.mutable_batch() = Act(1);
  request.mutable_ppo()->set_target_kl(0);
  int heard = 0;
  const auto result = training.UpdatePolicy(
      request, [&heard](const v1::UpdateProgress&) { ++heard; });
  ASSERT_OK(result);
  EXPECT_EQ(heard, 3);
  EXPECT_EQ(result->header().policy_version(), 2);
  // The next number is the next one.
  v1::OptimStepRequest publish;
  publish.set_publish(true);
  EXPECT_OK(training.OptimStep(publish));
  request.set_passes(0);
  EXPECT_EQ(training.UpdatePolicy(request).status().code(),
            Code::kInvalidArgument);
  EXPECT_TRUE(training.has_lease());
}

}  // namespace
}  // namespace esper::server
