// PolicyAdmin of a real server over a real channel.

#include <filesystem>

#include "tests/server/training_server.h"

namespace esper::server {
namespace {

using ::esper::testing::Refused;
using Code = absl::StatusCode;

namespace fs = std::filesystem;
using AdminServiceTest = TrainingServerTest;

TEST_F(AdminServiceTest, ACheckpointBringsBackWeightsAndVersion) {
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

TEST_F(AdminServiceTest, ANewServerStartsFromTheLatestCheckpoint) {
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

  // "If any" means the same where there is one.
  options.restore = "latest_if_any";
  second->reset();
  second = Server::Create(options);
  ASSERT_OK(second);
  EXPECT_EQ((*second)->policies().version(), 2);

  // Another policy's checkpoint is refused.
  policy::NetworkGrowingOptions other;
  other.hidden_dim = 24;
  options.spec = policy::PolicySpec::NetworkGrowing(other);
  EXPECT_THAT(Server::Create(options),
              Refused(Code::kFailedPrecondition, "SPEC_MISMATCH"));
}

TEST_F(AdminServiceTest, AVersionNumberIsNeverUsedForOtherWeights) {
  ASSERT_OK(ForwardBackward(Ppo(Act(1))));
  ASSERT_OK(OptimStep(true));
  ASSERT_OK(Save("old"));
  ASSERT_OK(ForwardBackward(Ppo(Act(2))));
  ASSERT_OK(OptimStep(true));
  const v1::TrajectoryBatch given_up = Act(3);  // Of version 3.

  const auto take_lease = [this] {
    auto lease = Acquire("test");
    ASSERT_OK(lease);
    token_ = lease->lease_token();
    sequence_ = 0;
  };
  ASSERT_OK(Restore("old"));
  take_lease();
  EXPECT_EQ(Status().header().policy_version(), 2);
  EXPECT_THAT(ForwardBackward(Ppo(given_up)),
              Refused(Code::kFailedPrecondition, "UNKNOWN_VERSION"));
  --sequence_;  // A refused write takes no number.
  const v1::TrajectoryBatch recent = Act(4);  // Of version 2, again.
  ASSERT_OK(ForwardBackward(Ppo(recent)));
  auto step = OptimStep(true);
  ASSERT_OK(step);
  EXPECT_EQ(step->header().policy_version(), 4);
  // Not stale, but of weights that this history does not have.
  EXPECT_THAT(ForwardBackward(Ppo(given_up)),
              Refused(Code::kFailedPrecondition, "UNKNOWN_VERSION"));
  --sequence_;  // A refused write takes no number.
  EXPECT_OK(ForwardBackward(Ppo(recent)));

  // Nor by a process that comes after this one, whatever it starts from.
  ServerOptions options;
  options.address = "";
  options.spec = esper::testing::SmallSpec();
  options.checkpoint_dir = checkpoints_.string();
  auto fresh = Server::Create(options);
  ASSERT_OK(fresh);
  EXPECT_EQ((*fresh)->policies().version(), 5);
  options.restore = "old";
  auto restored = Server::Create(options);
  ASSERT_OK(restored);
  EXPECT_EQ((*restored)->policies().version(), 2);
}

TEST_F(AdminServiceTest, AFirstStartHasNoCheckpointAndMayNotNeedOne) {
  const fs::path folder = checkpoints_ / "first_start";
  ServerOptions options;
  options.address = "";
  options.spec = esper::testing::SmallSpec();
  options.checkpoint_dir = folder.string();
  options.restore = "latest";
  EXPECT_THAT(Server::Create(options).status(),
              Refused(Code::kNotFound, "UNKNOWN_CHECKPOINT"));
  options.restore = "latest_if_any";
  auto server = Server::Create(options);
  ASSERT_OK(server);
  EXPECT_EQ((*server)->policies().version(), 1);

  options.checkpoint_dir.clear();
  EXPECT_THAT(Server::Create(options).status(),
              Refused(Code::kFailedPrecondition, "NO_CHECKPOINT_FOLDER"));
}

TEST_F(AdminServiceTest, BadCheckpointsAreRefusedAndChangeNothing) {
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

TEST_F(AdminServiceTest, WithoutAFolderCheckpointsAreRefused) {
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

TEST_F(AdminServiceTest, StatusTellsWhatWasDone) {
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
