#include "client/policy_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/policy_messages.h"
#include "client/status.h"
#include "client/tensor.h"
#include "tests/client/testing/fake_policy_server.h"
#include "tests/testing/status_matchers.h"

namespace esper::client {
namespace {

using ::esper::testing::StatusIs;
using ::testing::ElementsAre;
using testing::FakePolicyServer;
using testing::FastRetry;
using Code = absl::StatusCode;

PolicyInput Input(float first) {
  return {{first, 2, 3}, {0, -1}, {0x81, 0x01}};
}

StepRow Row(const EpisodeHandle& episode, int64_t step) {
  StepRow row;
  row.episode = episode;
  row.step = step;
  row.input = Input(static_cast<float>(step));
  return row;
}

class PolicyClientTest : public ::testing::Test {
 protected:
  EpisodeHandle Open(const std::string& key) {
    return client_.OpenEpisodes({{key, 1, 7, false}}).value()[0];
  }

  FakePolicyServer server_;
  PolicyClient client_{server_.Channel(), FastRetry()};
};

TEST_F(PolicyClientTest, AsksForAllRowsInOneCall) {
  const EpisodeHandle a = Open("a");
  const EpisodeHandle b = Open("b");
  auto actions = client_.GetAction({Row(a, 0), Row(b, 0)});
  ASSERT_TRUE(actions.ok()) << actions.status();
  ASSERT_EQ(actions->size(), 2);
  EXPECT_EQ((*actions)[0].actions, std::vector<int64_t>(8, 0));
  EXPECT_EQ((*actions)[1].log_probs, std::vector<float>(8, -0.5f));
  EXPECT_EQ((*actions)[1].policy_version, 1);
  const auto requests = server_.inference.acted();
  ASSERT_EQ(requests.size(), 1);
  EXPECT_THAT(requests[0].observations().shape(), ElementsAre(2, 3));
  EXPECT_THAT(requests[0].categorical().shape(), ElementsAre(2, 2));
  EXPECT_THAT(requests[0].action_masks().shape(), ElementsAre(2, 2));
}

TEST_F(PolicyClientTest, RepeatsTheSameStepAfterUnavailable) {
  const EpisodeHandle episode = Open("a");
  // The first attempt took the step, but its reply was lost.
  server_.faults.Push("GetAction",
                      {absl::UnavailableError("gone"), /*after_effect=*/true});
  server_.faults.Push("GetAction", {absl::DeadlineExceededError("late"), true});
  auto actions = client_.GetAction({Row(episode, 0)});
  ASSERT_TRUE(actions.ok()) << actions.status();
  const auto requests = server_.inference.acted();
  ASSERT_EQ(requests.size(), 3);
  for (const auto& request : requests) EXPECT_EQ(request.rows(0).step(), 0);
  // The episode is at step 1, not 3.
  EXPECT_TRUE(client_.GetAction({Row(episode, 1)}).ok());
}

TEST_F(PolicyClientTest, DecodesTheDetailOfARefusalAndDoesNotRetryIt) {
  const EpisodeHandle episode = Open("a");
  const auto refusal =
      client_.GetAction({Row(episode, 0), Row({"nobody", 1}, 0)});
  EXPECT_THAT(refusal.status(), StatusIs(Code::kNotFound));
  const auto detail = ErrorDetailOf(refusal.status());
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->reason(), "UNKNOWN_EPISODE");
  EXPECT_EQ(detail->row(), 1);
  EXPECT_EQ(server_.inference.acted().size(), 1);

  const auto gap = client_.GetAction({Row(episode, 5)});
  EXPECT_THAT(gap.status(), StatusIs(Code::kFailedPrecondition));
  EXPECT_EQ(ReasonOf(gap.status()), "STEP_OUT_OF_ORDER");
  EXPECT_EQ(ErrorDetailOf(gap.status())->step(), 0);
}

TEST_F(PolicyClientTest, GivesUpAfterTheTimeItWasGiven) {
  RetryPolicy hasty = FastRetry();
  hasty.give_up_after = absl::ZeroDuration();
  PolicyClient client(server_.Channel(), hasty);
  server_.faults.Push("GetPolicy", {absl::UnavailableError("gone"), false});
  EXPECT_THAT(client.GetPolicy().status(), StatusIs(Code::kUnavailable));
  EXPECT_TRUE(client.GetPolicy().ok());
}

TEST_F(PolicyClientTest, DoesNotRetryOnceItWasToldToStop) {
  absl::Notification stop;
  stop.Notify();
  RetryPolicy retry = FastRetry();
  retry.initial_backoff = absl::Seconds(5);
  retry.stop = &stop;
  PolicyClient client(server_.Channel(), retry);
  server_.faults.Push("GetPolicy", {absl::UnavailableError("gone"), false});
  EXPECT_THAT(client.GetPolicy().status(), StatusIs(Code::kUnavailable));
}

TEST_F(PolicyClientTest, OpensWithAHigherIncarnationWhenTheReplyWasLost) {
  server_.faults.Push("OpenEpisodes",
                      {absl::UnavailableError("gone"), /*after_effect=*/true});
  auto handles = client_.OpenEpisodes({{"a", 5, 7, false}});
  ASSERT_TRUE(handles.ok()) << handles.status();
  EXPECT_EQ((*handles)[0].incarnation, 6);
  EXPECT_EQ(server_.inference.open_episodes(), 1);
}

TEST_F(PolicyClientTest, RefusesRowsOfUnequalWidths) {
  const EpisodeHandle episode = Open("a");
  StepRow narrow = Row(episode, 0);
  narrow.input.observation.pop_back();
  EXPECT_THAT(client_.GetAction({Row(episode, 0), narrow}).status(),
              StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(client_.GetAction({}).status(), StatusIs(Code::kInvalidArgument));
  EXPECT_TRUE(server_.inference.acted().empty());
}

TEST_F(PolicyClientTest, ClosesWithFinalObservationsOfTruncatedEpisodesOnly) {
  EpisodeClose truncated;
  truncated.episode = Open("a");
  truncated.end_kind = v1::END_KIND_TRUNCATED;
  EpisodeClose terminated;
  terminated.episode = Open("b");
  terminated.end_kind = v1::END_KIND_TERMINATED;
  EXPECT_THAT(client_.CloseEpisodes({terminated, truncated}).status(),
              StatusIs(Code::kInvalidArgument));
  truncated.final_input = Input(9);
  auto closed = client_.CloseEpisodes({terminated, truncated});
  ASSERT_TRUE(closed.ok()) << closed.status();
  EXPECT_EQ((*closed)[0].bootstrap_value, 0);
  EXPECT_EQ((*closed)[1].bootstrap_value, 1.5f);
  EXPECT_EQ((*closed)[1].episode_return, 2.5);
  const auto values = UnpackTensor<float>(
      server_.inference.closed()[0].final_observations(), {2, 3}, "final");
  ASSERT_TRUE(values.ok()) << values.status();
  EXPECT_THAT(*values, ElementsAre(0, 0, 0, 9, 2, 3));
}

TEST_F(PolicyClientTest, SendsTheOutcomeOfThePreviousStep) {
  StepRow row = Row(Open("a"), 0);
  row.previous_outcome = StepOutcome{1.5f, 3, true, {0.5f, 2.5f}, {0, 1}};
  ASSERT_TRUE(client_.GetAction({row}).ok());
  const v1::StepOutcome outcome =
      server_.inference.acted()[0].rows(0).previous_outcome();
  EXPECT_EQ(outcome.reward(), 1.5f);
  EXPECT_EQ(outcome.effective_choice(), 3);
  EXPECT_TRUE(outcome.forced());
  EXPECT_EQ(outcome.contribution_mask(), 2);
  EXPECT_EQ(outcome.contribution_targets().size(), 2 * sizeof(float));
}

TEST(PolicyMessagesTest, RefusesAReplyThatBreaksTheProtocol) {
  v1::GetActionResponse response;
  EXPECT_THAT(FromResponse(response, 1).status(), StatusIs(Code::kInternal));
  *response.mutable_actions() = PackTensor(std::vector<uint8_t>{1, 2}, {1, 2});
  EXPECT_THAT(FromResponse(response, 1).status(), StatusIs(Code::kInternal));
  v1::BehaviourNumbers* behaviour = response.mutable_behaviour();
  behaviour->set_kind(v1::NUMBER_KIND_BEHAVIOUR);
  *behaviour->mutable_log_probs() =
      PackTensor(std::vector<float>{-1, -2}, {1, 2});
  *behaviour->mutable_values() = PackTensor(std::vector<float>{3}, {1});
  *response.mutable_policy_versions() =
      PackTensor(std::vector<int64_t>{4}, {1});
  auto rows = FromResponse(response, 1);
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_THAT((*rows)[0].actions, ElementsAre(1, 2));
  EXPECT_EQ((*rows)[0].policy_version, 4);
  behaviour->mutable_log_probs()->mutable_data()->pop_back();
  EXPECT_THAT(FromResponse(response, 1).status(), StatusIs(Code::kInternal));
}

TEST(ConnectTest, NamesTheAddressWhereNothingListens) {
  ConnectOptions options;
  EXPECT_THAT(Connect(options).status(), StatusIs(Code::kInvalidArgument));
  options.address = "unix:/nonexistent/esper.sock";
  options.timeout = absl::Milliseconds(50);
  const absl::Status status = Connect(options).status();
  EXPECT_THAT(status, StatusIs(Code::kUnavailable));
  EXPECT_NE(std::string(status.message()).find(options.address),
            std::string::npos);
  absl::Notification stop;
  stop.Notify();
  options.timeout = absl::Hours(1);
  options.stop = &stop;
  EXPECT_THAT(Connect(options).status(), StatusIs(Code::kCancelled));
}

}  // namespace
}  // namespace esper::client
