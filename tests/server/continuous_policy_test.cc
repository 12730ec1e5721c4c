// The whole way of a policy with Gaussian heads beside choices: GetAction,
// repeated steps, training, refusals.

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "client/policy_client.h"
#include "client/tensor.h"
#include "tests/server/training_server.h"

namespace esper::server {
namespace {

using ::esper::testing::Refused;
using Code = absl::StatusCode;
using policy::HeadSpec;
using policy::PolicySpec;

constexpr int64_t kWidth = 302;  // C.

// Two dimensions that two of three modes use, and many that all use.
PolicySpec HybridSpec() {
  HeadSpec aim = HeadSpec::Gaussian("aim", 2, 8);
  aim.driver = "mode";
  aim.relevant_when = {1, 2};
  PolicySpec spec =
      PolicySpec::Plain(4, {HeadSpec::Categorical("mode", 3, 8), aim,
                            HeadSpec::Gaussian("speed", kWidth - 2, 8)});
  spec.heads[0].idle_choice = 0;
  spec.feature_dim = 16;
  spec.hidden_dim = 16;
  return spec;
}

class ContinuousPolicyTest : public TrainingServerTest {
 protected:
  ContinuousPolicyTest() : TrainingServerTest(HybridSpec()) {}

  std::vector<client::EpisodeHandle> Open(int episodes, bool deterministic) {
    std::vector<client::EpisodeStart> starts(episodes);
    for (int i = 0; i < episodes; ++i) {
      starts[i].environment_key = "env" + std::to_string(i);
      starts[i].seed = 10 + i;
      starts[i].deterministic = deterministic;
    }
    auto handles = client::PolicyClient(channel_).OpenEpisodes(starts);
    EXPECT_OK(handles);
    return *handles;
  }
  // Every episode in the same state of the environment.
  std::vector<client::ActionRow> Step(
      const std::vector<client::EpisodeHandle>& handles, int64_t step,
      bool entropies = false) {
    std::vector<client::StepRow> rows;
    for (const auto& handle : handles) {
      client::StepRow row;
      row.episode = handle;
      row.step = step;
      row.input.observation = {0.1f, -0.2f, 0.3f, static_cast<float>(step)};
      rows.push_back(std::move(row));
    }
    auto answers = client::PolicyClient(channel_).GetAction(rows, entropies);
    EXPECT_OK(answers);
    return *answers;
  }
  static bool AllZero(const client::ActionRow& row, int64_t begin,
                      int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      if (row.continuous[j] != 0) return false;
    }
    return true;
  }
};

TEST_F(ContinuousPolicyTest, AnswersCarryContinuousActions) {
  bool used = false, unused = false;
  const auto handles = Open(12, /*deterministic=*/false);
  for (const client::ActionRow& row : Step(handles, 0, /*entropies=*/true)) {
    ASSERT_EQ(row.actions.size(), 3);
    EXPECT_EQ(row.actions[1], 0);
    EXPECT_EQ(row.actions[2], 0);
    ASSERT_EQ(row.continuous.size(), kWidth);
    const bool aims = row.actions[0] != 0;
    (aims ? used : unused) = true;
    EXPECT_EQ(AllZero(row, 0, 2), !aims);
    EXPECT_FALSE(AllZero(row, 2, kWidth));
    EXPECT_EQ(row.log_probs[1] == 0, !aims);
    // Deviations of 1: the differential entropy, not normalised.
    const double each = 0.5 * std::log(2 * M_PI * M_E);
    EXPECT_NEAR(row.entropies[2], (kWidth - 2) * each, 1e-2);
    EXPECT_NEAR(row.entropies[1], aims ? 2 * each : 0, 1e-4);
  }
  EXPECT_TRUE(used && unused) << "the test should see both";
}

TEST_F(ContinuousPolicyTest, ARepeatedStepGetsTheSameValues) {
  const auto handles = Open(3, /*deterministic=*/false);
  const auto first = Step(handles, 0);
  const auto again = Step(handles, 0);
  const auto one = Step({handles[1]}, 0);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(first[i].continuous, again[i].continuous);
    EXPECT_EQ(first[i].log_probs, again[i].log_probs);
  }
  EXPECT_EQ(one[0].continuous, first[1].continuous);
  EXPECT_NE(first[0].continuous, first[1].continuous);
  EXPECT_NE(Step(handles, 1)[0].continuous, first[0].continuous);
}

TEST_F(ContinuousPolicyTest, DeterministicEpisodesTakeTheMean) {
  const auto answers = Step(Open(2, /*deterministic=*/true), 0);
  EXPECT_EQ(answers[0].continuous, answers[1].continuous);
  for (int64_t j = 2; j < kWidth; ++j) {
    EXPECT_LT(std::fabs(answers[0].continuous[j]), 0.5);
  }
}

TEST_F(ContinuousPolicyTest, TrainsOverUpdatesAndCheckpoints) {
  for (int update = 0; update < 3; ++update) {
    const v1::TrajectoryBatch batch = Act(7 + update);
    EXPECT_EQ(
        client::DescribeTensor(batch.trajectories(0).continuous_actions()),
        "float32 [6, 302]");
    auto pass = ForwardBackward(Ppo(batch));
    ASSERT_OK(pass);
    ASSERT_TRUE(pass->has_ratio_check_max());
    EXPECT_LE(pass->ratio_check_max(), 1e-3);
    EXPECT_EQ(pass->nonfinite_term(), "");
    auto step = OptimStep(true);
    ASSERT_OK(step);
    EXPECT_TRUE(step->stepped() && step->published());
  }
  ASSERT_OK(Save("learnt"));
  ASSERT_OK(Restore("learnt"));
  const auto lease = Acquire("test");
  ASSERT_OK(lease);
  token_ = lease->lease_token();
  sequence_ = 0;
  auto pass = ForwardBackward(Ppo(Act(20)));
  ASSERT_OK(pass);
  EXPECT_LE(pass->ratio_check_max(), 1e-3);
}

TEST_F(ContinuousPolicyTest, EvaluationsAgreeWithBehaviour) {
  const v1::TrajectoryBatch batch = Act(1);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::seconds(60));
  auto stream = training_->EvaluateActions(&context);
  v1::EvaluateActionsRequest request;
  request.mutable_evaluate()->set_evaluation_id(1);
  *request.mutable_evaluate()->mutable_batch() = batch;
  v1::EvaluateActionsResponse response;
  ASSERT_TRUE(stream->Write(request) && stream->Read(&response));
  ASSERT_TRUE(response.has_evaluation()) << response.ShortDebugString();
  const auto now = client::UnpackTensor<float>(
      response.evaluation().numbers().log_probs(), {3, kSteps, 3}, "now");
  ASSERT_OK(now);
  for (int row = 0; row < 3; ++row) {
    const auto before = client::UnpackTensor<float>(
        batch.trajectories(row).behaviour().log_probs(), {kSteps, 3}, "then");
    ASSERT_OK(before);
    for (int i = 0; i < kSteps * 3; ++i) {
      EXPECT_NEAR((*now)[row * kSteps * 3 + i], (*before)[i], 1e-3);
    }
  }
}

TEST_F(ContinuousPolicyTest, BadUploadsAreRefusedAndNamed) {
  const v1::TrajectoryBatch good = Act(1);
  const auto refused = [&](const std::string& reason, auto change) {
    v1::TrajectoryBatch batch = good;
    change(batch.mutable_trajectories(1));
    auto response = ForwardBackward(Ppo(std::move(batch)));
    --sequence_;
    EXPECT_THAT(response, Refused(Code::kInvalidArgument, reason));
    const ErrorDetail detail =
        DetailOf(response.status()).value_or(ErrorDetail());
    EXPECT_EQ(detail.row, 1);
    return detail;
  };
  using T = v1::Trajectory*;
  EXPECT_EQ(
      refused("BAD_SHAPE", [](T t) { t->clear_continuous_actions(); }).field,
      "continuous_actions");
  EXPECT_EQ(refused("BAD_SHAPE",
                    [](T t) {
                      t->mutable_continuous_actions()->set_shape(0, 12);
                      t->mutable_continuous_actions()->set_shape(1, 151);
                    })
                .field,
            "continuous_actions");
  const ErrorDetail nan = refused("NONFINITE_INPUT", [](T t) {
    SetFloat(t->mutable_continuous_actions(), 2 * kWidth + 5,
             std::numeric_limits<float>::quiet_NaN());
  });
  EXPECT_EQ(nan.tensor, "continuous_actions");
  EXPECT_EQ(nan.step, 2);
  // Gaussian heads have no choices.
  EXPECT_EQ(refused("INVALID_ACTION",
                    [](T t) { (*t->mutable_actions()->mutable_data())[2] = 1; })
                .field,
            "speed");
  EXPECT_OK(ForwardBackward(Ppo(good)));
}

class NoGaussianHeadTest : public TrainingServerTest {};

TEST_F(NoGaussianHeadTest, ContinuousActionsAreRefused) {
  v1::TrajectoryBatch batch = Act(1);
  EXPECT_FALSE(batch.trajectories(0).has_continuous_actions());
  *batch.mutable_trajectories(2)->mutable_continuous_actions() =
      client::PackTensor(std::vector<float>(kSteps), {kSteps, 1});
  auto response = ForwardBackward(Ppo(batch));
  EXPECT_THAT(response, Refused(Code::kInvalidArgument, "BAD_SHAPE"));
  const ErrorDetail detail =
      DetailOf(response.status()).value_or(ErrorDetail());
  EXPECT_EQ(detail.field, "continuous_actions");
  EXPECT_EQ(detail.row, 2);
}

// Nothing to choose at all: no mask has a bit, so none can be missing.
class BoxPolicyTest : public TrainingServerTest {
 protected:
  BoxPolicyTest() : TrainingServerTest(Spec()) {}
  static PolicySpec Spec() {
    PolicySpec spec = PolicySpec::Plain(3, {HeadSpec::Gaussian("force", 2)});
    spec.mask_optional = false;
    return spec;
  }
};

TEST_F(BoxPolicyTest, ActsAndTrainsWithoutMasks) {
  const v1::TrajectoryBatch batch = Act(1);
  EXPECT_EQ(client::DescribeTensor(batch.trajectories(0).actions()),
            "uint8 [6, 1]");
  EXPECT_EQ(client::DescribeTensor(batch.trajectories(0).continuous_actions()),
            "float32 [6, 2]");
  ASSERT_OK(ForwardBackward(Ppo(batch)));
  EXPECT_OK(OptimStep(true));
}

}  // namespace
}  // namespace esper::server
