#include "server/learner_lease.h"

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::server {
namespace {

using ::esper::testing::Refused;

class LearnerLeaseTest : public ::testing::Test {
 protected:
  absl::Time now_ = absl::UnixEpoch();
  LearnerLease lease_{{absl::Seconds(60)}, [this] { return now_; }};

  int64_t Acquire(const std::string& holder) {
    auto grant = lease_.Acquire(holder);
    EXPECT_OK(grant);
    return grant.ok() ? grant->token : -1;
  }
};

TEST_F(LearnerLeaseTest, TokensRiseAndTheSameHolderMayTakeItAgain) {
  const int64_t first = Acquire("a");
  EXPECT_EQ(Acquire("a"), first + 1);
  EXPECT_EQ(lease_.Holder(), "a");
}

TEST_F(LearnerLeaseTest, AnotherHolderWaitsUntilItExpires) {
  const int64_t first = Acquire("a");
  EXPECT_THAT(lease_.Acquire("b"),
              Refused(absl::StatusCode::kAborted, "STALE_LEASE"));
  now_ += absl::Seconds(59);
  EXPECT_OK(lease_.Renew(first));
  now_ += absl::Seconds(59);
  EXPECT_THAT(lease_.Acquire("b"),
              Refused(absl::StatusCode::kAborted, "STALE_LEASE"));
  now_ += absl::Seconds(2);
  EXPECT_GT(Acquire("b"), first);
  EXPECT_THAT(lease_.Begin(first, 1, "Step"),
              Refused(absl::StatusCode::kAborted, "STALE_LEASE"));
  EXPECT_THAT(lease_.Renew(first),
              Refused(absl::StatusCode::kAborted, "STALE_LEASE"));
}

TEST_F(LearnerLeaseTest, TellsWhetherTheHolderIsAnotherOne) {
  EXPECT_TRUE(lease_.Acquire("a")->taken_over);  // Nobody was before.
  EXPECT_FALSE(lease_.Acquire("a")->taken_over);
  now_ += absl::Minutes(2);
  EXPECT_FALSE(lease_.Acquire("a")->taken_over);
  ASSERT_OK(lease_.Release(lease_.Token()));
  EXPECT_FALSE(lease_.Acquire("a")->taken_over);
  now_ += absl::Minutes(2);
  EXPECT_TRUE(lease_.Acquire("b")->taken_over);
  lease_.End(0);
  EXPECT_TRUE(lease_.Acquire("b")->taken_over);
}

TEST_F(LearnerLeaseTest, ReleaseFreesItAtOnce) {
  const int64_t first = Acquire("a");
  EXPECT_OK(lease_.Release(first));
  EXPECT_EQ(lease_.Holder(), "");
  EXPECT_THAT(lease_.Begin(first, 1, "Step"),
              Refused(absl::StatusCode::kAborted, "STALE_LEASE"));
  Acquire("b");
}

TEST_F(LearnerLeaseTest, ARepeatedNumberGetsTheStoredAnswer) {
  const int64_t token = Acquire("a");
  auto begun = lease_.Begin(token, 1, "Step");
  ASSERT_OK(begun);
  EXPECT_FALSE(begun->has_value());
  lease_.Finish(token, 1, "Step", "answer");
  begun = lease_.Begin(token, 1, "Step");
  ASSERT_OK(begun);
  EXPECT_EQ(*begun, "answer");
}

TEST_F(LearnerLeaseTest, ARefusedWriteDoesNotUseUpItsNumber) {
  const int64_t token = Acquire("a");
  ASSERT_OK(lease_.Begin(token, 1, "Step"));  // Refused later: no Finish.
  auto again = lease_.Begin(token, 1, "Step");
  ASSERT_OK(again);
  EXPECT_FALSE(again->has_value());
}

TEST_F(LearnerLeaseTest, GapsAndOldNumbersAreRefused) {
  const int64_t token = Acquire("a");
  lease_.Finish(token, 1, "Step", "one");
  lease_.Finish(token, 2, "Step", "two");
  for (int64_t sequence : {-1, 0, 1, 4}) {
    EXPECT_THAT(
        lease_.Begin(token, sequence, "Step"),
        Refused(absl::StatusCode::kInvalidArgument, "MALFORMED_REQUEST"))
        << sequence;
  }
}

TEST_F(LearnerLeaseTest, AnswersDoNotOutliveTheirToken) {
  const int64_t first = Acquire("a");
  const int64_t second = Acquire("a");
  lease_.Finish(first, 1, "Step", "late");
  auto begun = lease_.Begin(second, 1, "Step");
  ASSERT_OK(begun);
  EXPECT_FALSE(begun->has_value());
}

TEST_F(LearnerLeaseTest, ANumberBelongsToTheCallThatUsedIt) {
  const int64_t token = Acquire("a");
  lease_.Finish(token, 1, "Step", "answer");
  EXPECT_THAT(lease_.Begin(token, 1, "Evaluate"),
              Refused(absl::StatusCode::kInvalidArgument, "MALFORMED_REQUEST"));
}

TEST_F(LearnerLeaseTest, AnEndedLeaseCanNeitherWriteNorRenew) {
  const int64_t token = Acquire("a");
  lease_.End(token);
  EXPECT_EQ(lease_.Holder(), "");
  EXPECT_THAT(lease_.Begin(token, 1, "Step"),
              Refused(absl::StatusCode::kAborted, "STALE_LEASE"));
  EXPECT_THAT(lease_.Renew(token),
              Refused(absl::StatusCode::kAborted, "STALE_LEASE"));
  EXPECT_GT(Acquire("b"), token);
}

TEST_F(LearnerLeaseTest, TokensStayMonotone) {
  lease_.End(41);
  EXPECT_EQ(Acquire("a"), 42);
  lease_.End(7);
  EXPECT_EQ(Acquire("a"), 43);
}

TEST_F(LearnerLeaseTest, AnEmptyHolderIsRefused) {
  EXPECT_THAT(lease_.Acquire(""),
              Refused(absl::StatusCode::kInvalidArgument, "MALFORMED_REQUEST"));
}

}  // namespace
}  // namespace esper::server
