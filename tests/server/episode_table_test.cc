#include "server/episode_table.h"

#include <set>

#include "gtest/gtest.h"
#include "tests/server/fake_clock.h"
#include "tests/testing/status_matchers.h"

namespace esper::server {
namespace {

using ::esper::testing::FakeClock;
using ::esper::testing::Refused;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

class EpisodeTableTest : public ::testing::Test {
 protected:
  static EpisodeTable::Options Options() {
    EpisodeTable::Options options;
    options.max_episodes = 3;
    options.lease = absl::Seconds(10);
    options.remembered = 3;
    options.driver_head = 1;
    options.idle_choice = 0;
    return options;
  }

  std::string Open(const std::string& key, uint64_t incarnation = 1) {
    return table_.Open({{key, incarnation, 0, false}}).value().front();
  }

  static StepClaim Step(const std::string& id, int64_t step,
                        uint64_t incarnation = 1) {
    StepClaim claim;
    claim.episode_id = id;
    claim.incarnation = incarnation;
    claim.step = step;
    return claim;
  }

  static CloseClaim Close(const std::string& id, int64_t steps) {
    CloseClaim claim;
    claim.episode_id = id;
    claim.incarnation = 1;
    claim.steps = steps;
    if (steps > 0) claim.last = Outcome{1.0f, 4};
    return claim;
  }

  // Takes a step whose driver action is 4.
  void Take(const StepClaim& claim) {
    auto tickets = **table_.BeginSteps({claim});
    ASSERT_FALSE(tickets[0].repeated);
    tickets[0].answer.version = 1;
    tickets[0].answer.actions = {7, 4};
    table_.CommitSteps(tickets);
  }

  FakeClock clock_;
  StatePool pool_{1, 4, 6};
  EpisodeTable table_{Options(), &pool_, clock_.AsClock()};
};

TEST_F(EpisodeTableTest, IdsAreDistinctAndSixteenBytesLong) {
  const auto ids =
      table_.Open({{"a", 1, 0, false}, {"b", 1, 0, false}, {"c", 1, 0, false}});
  ASSERT_OK(ids);
  EXPECT_EQ(std::set<std::string>(ids->begin(), ids->end()).size(), 3u);
  EXPECT_EQ(ids->front().size(), 16u);
}

TEST_F(EpisodeTableTest, OpensAllOrNone) {
  const auto refused = table_.Open({{"a", 1, 0, false}, {"", 1, 0, false}});
  EXPECT_THAT(refused, Refused(kInvalid, "MALFORMED_REQUEST"));
  EXPECT_EQ(DetailOf(refused.status())->row, 1);
  EXPECT_EQ(table_.OpenCount(), 0);
  EXPECT_EQ(pool_.available(), 6);
}

TEST_F(EpisodeTableTest, RefusesMalformedStarts) {
  for (const EpisodeStart& start :
       {EpisodeStart{std::string(257, 'k'), 1, 0, false},
        EpisodeStart{"", 1, 0, false}, EpisodeStart{"k", 0, 0, false}}) {
    EXPECT_THAT(table_.Open({start}), Refused(kInvalid, "MALFORMED_REQUEST"));
  }
  EXPECT_OK(table_.Open({{std::string(256, 'k'), 1, 0, false}}));
  EXPECT_THAT(table_.Open({{"a", 1, 0, false}, {"a", 2, 0, false}}),
              Refused(kInvalid, "MALFORMED_REQUEST"));
}

TEST_F(EpisodeTableTest, AFullTableNamesItsBudget) {
  Open("a");
  Open("b");
  const auto refused = table_.Open({{"c", 1, 0, false}, {"d", 1, 0, false}});
  EXPECT_THAT(refused,
              Refused(absl::StatusCode::kResourceExhausted, "BUDGET_EXCEEDED"));
  EXPECT_EQ(DetailOf(refused.status())->field, "max_episodes");
  Open("c");
  // A higher incarnation takes the place of the older one.
  EXPECT_OK(table_.Open({{"c", 2, 0, false}}));
}

TEST_F(EpisodeTableTest, AHigherIncarnationClosesTheOlderEpisode) {
  const std::string older = Open("env", 3);
  EXPECT_THAT(table_.Open({{"env", 3, 0, false}}),
              Refused(kPrecondition, "WRONG_INCARNATION"));
  EXPECT_THAT(table_.Open({{"env", 2, 0, false}}),
              Refused(kPrecondition, "WRONG_INCARNATION"));
  const std::string newer = Open("env", 4);
  EXPECT_THAT(table_.BeginSteps({Step(older, 0, 3)}),
              Refused(kPrecondition, "WRONG_INCARNATION"));
  EXPECT_THAT(table_.BeginSteps({Step(newer, 0, 3)}),
              Refused(kPrecondition, "WRONG_INCARNATION"));
  Take(Step(newer, 0, 4));
  EXPECT_EQ(table_.OpenCount(), 1);
}

TEST_F(EpisodeTableTest, StepsComeInOrderAndTheLastOneIsRemembered) {
  const std::string id = Open("env");
  EXPECT_THAT(table_.BeginSteps({Step(id, 1)}),
              Refused(kPrecondition, "STEP_OUT_OF_ORDER"));
  EXPECT_THAT(table_.BeginSteps({Step(id, -1)}),
              Refused(kPrecondition, "STEP_OUT_OF_ORDER"));
  Take(Step(id, 0));
  Take(Step(id, 1));
  const auto repeated = **table_.BeginSteps({Step(id, 1)});
  EXPECT_TRUE(repeated[0].repeated);
  EXPECT_EQ(repeated[0].answer.actions, (std::vector<int64_t>{7, 4}));
  table_.CommitSteps(repeated);
  for (const int64_t wrong : {0, 3}) {
    const auto refused = table_.BeginSteps({Step(id, wrong)}).status();
    EXPECT_THAT(refused, Refused(kPrecondition, "STEP_OUT_OF_ORDER"));
    EXPECT_EQ(DetailOf(refused)->step, 2);
  }
  Take(Step(id, 2));
}

TEST_F(EpisodeTableTest, ACallThatIsRefusedClaimsNothing) {
  const std::string a = Open("a");
  const std::string b = Open("b");
  const auto refused = table_.BeginSteps({Step(a, 0), Step(b, 5)}).status();
  EXPECT_THAT(refused, Refused(kPrecondition, "STEP_OUT_OF_ORDER"));
  EXPECT_EQ(DetailOf(refused)->row, 1);
  Take(Step(a, 0));
}

TEST_F(EpisodeTableTest, AnEpisodeIsNamedOncePerCall) {
  const std::string id = Open("a");
  EXPECT_THAT(table_.BeginSteps({Step(id, 0), Step(id, 1)}),
              Refused(kInvalid, "MALFORMED_REQUEST"));
  EXPECT_THAT(table_.BeginClose({Close(id, 0), Close(id, 0)}),
              Refused(kInvalid, "MALFORMED_REQUEST"));
}

TEST_F(EpisodeTableTest, AClaimedEpisodeMakesOthersWait) {
  const std::string id = Open("a");
  auto first = **table_.BeginSteps({Step(id, 0)});
  // The same step again, the next one, and the end: all wait.
  EXPECT_EQ(*table_.BeginSteps({Step(id, 0)}), std::nullopt);
  EXPECT_EQ(*table_.BeginSteps({Step(id, 1)}), std::nullopt);
  EXPECT_EQ(*table_.BeginClose({Close(id, 1)}), std::nullopt);
  first[0].answer.actions = {7, 4};
  table_.CommitSteps(first);
  EXPECT_TRUE((**table_.BeginSteps({Step(id, 0)}))[0].repeated);
}

TEST_F(EpisodeTableTest, AnAbortedClaimLeavesTheStepToBeTaken) {
  const std::string id = Open("a");
  table_.AbortSteps(**table_.BeginSteps({Step(id, 0)}));
  Take(Step(id, 0));
}

TEST_F(EpisodeTableTest, OutcomesNameTheChosenOrTheIdleAction) {
  const std::string id = Open("a");
  StepClaim first = Step(id, 0);
  first.previous = Outcome{1.0f, 0};
  EXPECT_THAT(table_.BeginSteps({first}),
              Refused(kInvalid, "MALFORMED_REQUEST"));
  Take(Step(id, 0));
  StepClaim next = Step(id, 1);
  next.previous = Outcome{1.0f, 3};
  EXPECT_THAT(table_.BeginSteps({next}), Refused(kInvalid, "INVALID_ACTION"));
  next.previous = Outcome{1.5f, 4};
  Take(next);
  next = Step(id, 2);
  next.previous = Outcome{2.0f, 0};
  Take(next);
  CloseClaim close = Close(id, 3);
  close.last = Outcome{4.0f, 4};
  const auto tickets = **table_.BeginClose({close});
  EXPECT_DOUBLE_EQ(tickets[0].episode_return, 7.5);
  table_.CommitClose(tickets);
}

TEST_F(EpisodeTableTest, ARepeatedStepCountsItsOutcomeOnce) {
  const std::string id = Open("a");
  Take(Step(id, 0));
  StepClaim next = Step(id, 1);
  next.previous = Outcome{3.0f, 4};
  Take(next);
  table_.CommitSteps(**table_.BeginSteps({next}));
  const auto tickets = **table_.BeginClose({Close(id, 2)});
  EXPECT_DOUBLE_EQ(tickets[0].episode_return, 4.0);
  table_.AbortClose(tickets);
}

TEST_F(EpisodeTableTest, ClosingFreesTheRowAndIsIdempotent) {
  const std::string id = Open("a");
  Take(Step(id, 0));
  EXPECT_EQ(pool_.available(), 5);
  auto tickets = **table_.BeginClose({Close(id, 1)});
  tickets[0].bootstrap = 2.5f;
  table_.CommitClose(tickets);
  EXPECT_EQ(pool_.available(), 6);
  EXPECT_EQ(table_.OpenCount(), 0);
  const auto again = **table_.BeginClose({Close(id, 1)});
  EXPECT_EQ(again[0].episode, nullptr);
  EXPECT_EQ(again[0].bootstrap, 2.5f);
  EXPECT_DOUBLE_EQ(again[0].episode_return, 1.0);
  table_.CommitClose(again);
  EXPECT_EQ(pool_.available(), 6);
  EXPECT_THAT(table_.BeginSteps({Step(id, 1)}),
              Refused(absl::StatusCode::kNotFound, "UNKNOWN_EPISODE"));
  // The environment may go on under the same key.
  Open("a");
}

TEST_F(EpisodeTableTest, RefusesEndsThatDoNotFit) {
  const std::string id = Open("a");
  CloseClaim never = Close(id, 0);
  never.last = Outcome{1.0f, 4};
  EXPECT_THAT(table_.BeginClose({never}),
              Refused(kInvalid, "MALFORMED_REQUEST"));
  Take(Step(id, 0));
  EXPECT_THAT(table_.BeginClose({Close(id, 2)}),
              Refused(kPrecondition, "STEP_OUT_OF_ORDER"));
  CloseClaim silent = Close(id, 1);
  silent.last = std::nullopt;
  EXPECT_THAT(table_.BeginClose({silent}),
              Refused(kInvalid, "MALFORMED_REQUEST"));
  silent.aborted = true;
  const auto tickets = table_.BeginClose({silent});
  ASSERT_OK(tickets);
  table_.CommitClose(**tickets);
}

TEST_F(EpisodeTableTest, IdleEpisodesExpireAndCallsRenewTheLease) {
  const std::string idle = Open("idle");
  const std::string busy = Open("busy");
  clock_.Advance(absl::Seconds(6));
  Take(Step(busy, 0));
  clock_.Advance(absl::Seconds(6));
  EXPECT_THAT(table_.BeginSteps({Step(idle, 0)}),
              Refused(kPrecondition, "EPISODE_EXPIRED"));
  EXPECT_THAT(table_.BeginClose({Close(idle, 0)}),
              Refused(kPrecondition, "EPISODE_EXPIRED"));
  Take(Step(busy, 1));
  EXPECT_EQ(table_.OpenCount(), 1);
  EXPECT_EQ(pool_.available(), 5);
  // Its key is free again, under the same incarnation.
  Open("idle");
}

TEST_F(EpisodeTableTest, AClaimedEpisodeDoesNotExpire) {
  const std::string id = Open("a");
  auto tickets = **table_.BeginSteps({Step(id, 0)});
  clock_.Advance(absl::Minutes(5));
  EXPECT_EQ(table_.OpenCount(), 1);
  tickets[0].answer.actions = {7, 4};
  table_.CommitSteps(tickets);
  Take(Step(id, 1));
}

TEST_F(EpisodeTableTest, ASupersededRowIsFreedWhenItsClaimEnds) {
  const std::string id = Open("a");
  auto tickets = **table_.BeginSteps({Step(id, 0)});
  Open("a", 2);
  EXPECT_EQ(pool_.available(), 4);  // Nobody else may write to the row yet.
  tickets[0].answer.actions = {7, 4};
  table_.CommitSteps(tickets);
  EXPECT_EQ(pool_.available(), 5);
}

TEST_F(EpisodeTableTest, OldEndsAreForgotten) {
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) {
    ids.push_back(Open("a"));
    table_.CommitClose(**table_.BeginClose({Close(ids.back(), 0)}));
  }
  EXPECT_OK(table_.BeginClose({Close(ids[4], 0)}));
  EXPECT_OK(table_.BeginClose({Close(ids[2], 0)}));
  EXPECT_THAT(table_.BeginClose({Close(ids[1], 0)}),
              Refused(absl::StatusCode::kNotFound, "UNKNOWN_EPISODE"));
  EXPECT_THAT(table_.BeginSteps({Step("never opened", 0)}),
              Refused(absl::StatusCode::kNotFound, "UNKNOWN_EPISODE"));
}

}  // namespace
}  // namespace esper::server
