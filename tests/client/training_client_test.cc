#include "client/training_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/status.h"
#include "tests/client/testing/fake_policy_server.h"
#include "tests/testing/status_matchers.h"

namespace esper::client {
namespace {

using ::esper::testing::StatusIs;
using ::testing::ElementsAre;
using testing::FakePolicyServer;
using testing::FastRetry;
using Code = absl::StatusCode;

class TrainingClientTest : public ::testing::Test {
 protected:
  FakePolicyServer server_;
  TrainingClient client_{server_.Channel(), FastRetry()};
  v1::ForwardBackwardRequest batch_;
};

TEST_F(TrainingClientTest, NumbersTheWritesOfALease) {
  EXPECT_THAT(client_.ForwardBackward(batch_).status(),
              StatusIs(Code::kFailedPrecondition));
  ASSERT_TRUE(client_.AcquireLearner("me").ok());
  ASSERT_TRUE(client_.ForwardBackward(batch_).ok());
  ASSERT_TRUE(client_.OptimStep({}).ok());
  ASSERT_TRUE(client_.ForwardBackward(batch_).ok());
  EXPECT_THAT(server_.training.sequences, ElementsAre(1, 2, 3));
  ASSERT_TRUE(client_.AcquireLearner("me").ok());
  ASSERT_TRUE(client_.ForwardBackward(batch_).ok());
  EXPECT_THAT(server_.training.sequences, ElementsAre(1, 2, 3, 1));
}

TEST_F(TrainingClientTest, RepeatsALostWriteUnderTheSameNumber) {
  ASSERT_TRUE(client_.AcquireLearner("me").ok());
  server_.faults.Push("ForwardBackward",
                      {absl::UnavailableError("gone"), /*after_effect=*/true});
  ASSERT_TRUE(client_.ForwardBackward(batch_).ok());
  server_.faults.Push("OptimStep", {absl::UnavailableError("gone"), true});
  v1::OptimStepRequest step;
  step.set_publish(true);
  auto stepped = client_.OptimStep(step);
  ASSERT_TRUE(stepped.ok()) << stepped.status();
  EXPECT_TRUE(stepped->stepped());
  EXPECT_THAT(server_.training.sequences, ElementsAre(1, 1, 2, 2));
  EXPECT_EQ(server_.training.forward_backwards, 1);
  EXPECT_EQ(server_.training.steps, 1);
  EXPECT_EQ(server_.inference.version, 2);
}

TEST_F(TrainingClientTest, KeepsTheNumberOfARefusedWrite) {
  ASSERT_TRUE(client_.AcquireLearner("me").ok());
  EXPECT_THAT(client_.OptimStep({}).status(),
              StatusIs(Code::kFailedPrecondition));
  EXPECT_TRUE(client_.has_lease());
  ASSERT_TRUE(client_.ForwardBackward(batch_).ok());
  EXPECT_THAT(server_.training.sequences, ElementsAre(1, 1));
}

TEST_F(TrainingClientTest, LosesTheLeaseToAHigherToken) {
  ASSERT_TRUE(client_.AcquireLearner("me").ok());
  TrainingClient other(server_.Channel(), FastRetry());
  ASSERT_TRUE(other.AcquireLearner("other").ok());
  const absl::Status status = client_.ForwardBackward(batch_).status();
  EXPECT_THAT(status, StatusIs(Code::kAborted));
  EXPECT_EQ(ReasonOf(status), "STALE_LEASE");
  EXPECT_FALSE(client_.has_lease());
  EXPECT_THAT(client_.RenewLearner(), StatusIs(Code::kFailedPrecondition));
}

TEST_F(TrainingClientTest, DropsTheLeaseWhenTheOutcomeOfAWriteIsUnknown) {
  RetryPolicy hasty = FastRetry();
  hasty.give_up_after = absl::ZeroDuration();
  TrainingClient client(server_.Channel(), hasty);
  ASSERT_TRUE(client.AcquireLearner("me").ok());
  server_.faults.Push("ForwardBackward",
                      {absl::UnavailableError("gone"), true});
  EXPECT_THAT(client.ForwardBackward(batch_).status(),
              StatusIs(Code::kUnavailable));
  EXPECT_FALSE(client.has_lease());
  ASSERT_TRUE(client.AcquireLearner("me").ok());
  EXPECT_TRUE(client.ForwardBackward(batch_).ok());
}

TEST_F(TrainingClientTest, TotalsAloneAreAWriteOnTheFirstPassOnly) {
  batch_.set_totals_only(true);
  ASSERT_TRUE(client_.ForwardBackward(batch_).ok());  // Needs no lease.
  EXPECT_EQ(server_.training.totals_reads, 1);
  batch_.set_first_pass(true);
  EXPECT_THAT(client_.ForwardBackward(batch_).status(),
              StatusIs(Code::kFailedPrecondition));
  ASSERT_TRUE(client_.AcquireLearner("me").ok());
  ASSERT_TRUE(client_.ForwardBackward(batch_).ok());
  EXPECT_THAT(server_.training.sequences, ElementsAre(1));
  EXPECT_EQ(server_.training.totals_reads, 1);
}

TEST_F(TrainingClientTest, RenewsAndReleases) {
  EXPECT_TRUE(client_.ReleaseLearner().ok());
  EXPECT_FALSE(server_.training.released);
  ASSERT_TRUE(client_.AcquireLearner("me").ok());
  EXPECT_TRUE(client_.RenewLearner().ok());
  EXPECT_TRUE(client_.ReleaseLearner().ok());
  EXPECT_TRUE(server_.training.released);
  EXPECT_FALSE(client_.has_lease());
}

}  // namespace
}  // namespace esper::client
