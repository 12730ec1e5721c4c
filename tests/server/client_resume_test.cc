// PolicyClient and ActionPipeline against a real server whose connections
// break.

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/action_pipeline.h"
#include "client/policy_client.h"
#include "client/status.h"
#include "gtest/gtest.h"
#include "tests/server/service_fixture.h"
#include "tests/server/step_rows.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tcp_proxy.h"

namespace esper::testing {
namespace {

using client::ActionPipeline;
using client::ActionRow;
using client::EpisodeHandle;
using client::PolicyClient;
using client::StepRow;
using Code = absl::StatusCode;

client::RetryPolicy Patient() {
  client::RetryPolicy retry;
  retry.attempt_timeout = absl::Seconds(5);
  retry.give_up_after = absl::Seconds(30);
  retry.initial_backoff = absl::Milliseconds(5);
  retry.max_backoff = absl::Milliseconds(100);
  return retry;
}

class ClientResumeTest : public ServiceTest {
 protected:
  ClientResumeTest() { StartOnPort(); }

  void StartOnPort() {
    server::ServerOptions options = Options();
    options.address = "127.0.0.1:0";
    Start(options);
    proxy_.SetTarget(server_->port());
  }

  std::shared_ptr<grpc::Channel> ProxyChannel() {
    client::ConnectOptions connect;
    connect.address = proxy_.address();
    auto channel = client::Connect(connect);
    EXPECT_OK(channel);
    return *channel;
  }

  EpisodeHandle OpenEpisode(int environment, uint64_t seed) {
    return {Open(absl::StrCat("env", environment), seed), 1};
  }

  StepRow Row(const EpisodeHandle& episode, int environment,
              int64_t step) const {
    StepRow row = RowOf(InputsOf(environment, step), mask_codec_);
    row.episode = episode;
    row.step = step;
    return row;
  }

  // Plays an episode while somebody breaks the connections.
  void ExpectPlaysThrough(ActionPipeline::Transport transport) {
    constexpr int kEnvironments = 8;
    constexpr int64_t kSteps = 40;
    ActionPipeline::Options options;
    options.transport = transport;
    options.retry = Patient();
    ActionPipeline pipeline(ProxyChannel(), options);
    std::vector<EpisodeHandle> episodes;
    for (int i = 0; i < kEnvironments; ++i) {
      episodes.push_back(OpenEpisode(i, 50 + i));
    }
    std::vector<std::vector<StepNumbers>> played(kEnvironments);
    for (int64_t step = 0; step < kSteps; ++step) {
      std::vector<std::future<ActionPipeline::Result>> answers;
      for (int i = 0; i < kEnvironments; ++i) {
        answers.push_back(pipeline.GetAction({Row(episodes[i], i, step)}));
        if (step % 8 == 3 && i == 4) proxy_.Cut();
      }
      for (int i = 0; i < kEnvironments; ++i) {
        const ActionPipeline::Result answer = answers[i].get();
        ASSERT_TRUE(answer.ok()) << answer.status();
        const ActionRow& row = answer->front();
        played[i].push_back({row.actions, row.log_probs, row.value});
      }
    }
    EXPECT_GE(proxy_.cut(), 1);
    for (int i = 0; i < kEnvironments; ++i) {
      ExpectSameSteps(played[i], PlayLocally(50 + i, i, kSteps), 2e-5f);
    }
    EXPECT_EQ(server_->counters().actions_served, kEnvironments * kSteps);
  }

  TcpProxy proxy_{0};  // To the server that runs.
};

TEST_F(ClientResumeTest, AStreamPlaysThroughLostConnections) {
  ExpectPlaysThrough(ActionPipeline::Transport::kStream);
}

TEST_F(ClientResumeTest, UnaryCallsPlayThroughLostConnections) {
  ExpectPlaysThrough(ActionPipeline::Transport::kUnary);
}

TEST_F(ClientResumeTest, ACallIsRetriedUntilTheProxyIsBack) {
  PolicyClient client(ProxyChannel(), Patient());
  const EpisodeHandle episode = OpenEpisode(0, 9);
  std::vector<StepNumbers> played;
  for (int64_t step = 0; step < 6; ++step) {
    std::thread back;
    if (step % 2 == 1) {
      proxy_.SetUp(false);
      back = std::thread([this] {
        absl::SleepFor(absl::Milliseconds(300));
        proxy_.SetUp(true);
      });
    }
    const auto answer = client.GetAction({Row(episode, 0, step)});
    if (back.joinable()) back.join();
    ASSERT_TRUE(answer.ok()) << answer.status();
    const ActionRow& row = answer->front();
    played.push_back({row.actions, row.log_probs, row.value});
  }
  ExpectSameSteps(played, PlayLocally(9, 0, 6), 1e-6f);
  EXPECT_EQ(server_->counters().actions_served, 6);
}

TEST_F(ClientResumeTest, ARestartedServerHasLostTheEpisodeAndSaysSo) {
  PolicyClient client(ProxyChannel(), Patient());
  ActionPipeline::Options options;
  options.retry = Patient();
  ActionPipeline pipeline(ProxyChannel(), options);
  const EpisodeHandle episode = OpenEpisode(0, 9);
  ASSERT_TRUE(client.GetAction({Row(episode, 0, 0)}).ok());
  ASSERT_TRUE(pipeline.GetAction({Row(episode, 0, 1)}).get().ok());
  StartOnPort();
  for (const absl::Status& lost :
       {client.GetAction({Row(episode, 0, 2)}).status(),
        pipeline.GetAction({Row(episode, 0, 2)}).get().status()}) {
    EXPECT_THAT(lost, StatusIs(Code::kNotFound));
    EXPECT_EQ(client::ReasonOf(lost), "UNKNOWN_EPISODE");
    EXPECT_TRUE(client::IsEpisodeLost(lost));
    EXPECT_EQ(client::ErrorDetailOf(lost)->hint(), "Open a new episode.");
  }
  const auto opened = client.OpenEpisodes({{"env0", 1, 9, false}});
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_TRUE(client.GetAction({Row((*opened)[0], 0, 0)}).ok());
}

TEST_F(ClientResumeTest, APipelineReportsRefusalsAndGoesOn) {
  for (const auto transport : {ActionPipeline::Transport::kStream,
                               ActionPipeline::Transport::kUnary}) {
    ActionPipeline::Options options;
    options.transport = transport;
    options.retry = Patient();
    ActionPipeline pipeline(channel_, options);
    const auto nobody = pipeline.GetAction({Row({"nobody", 1}, 0, 0)}).get();
    EXPECT_THAT(nobody.status(), StatusIs(Code::kNotFound));
    const EpisodeHandle episode{
        Open(absl::StrCat("env", static_cast<int>(transport))), 1};
    const auto early = pipeline.GetAction({Row(episode, 0, 3)}).get();
    EXPECT_EQ(client::ReasonOf(early.status()), "STEP_OUT_OF_ORDER");
    EXPECT_TRUE(pipeline.GetAction({Row(episode, 0, 0)}).get().ok());
    EXPECT_THAT(pipeline.GetAction(std::vector<StepRow>()).get().status(),
                StatusIs(Code::kInvalidArgument));
    EXPECT_EQ(pipeline.retries(), 0);
  }
}

TEST_F(ClientResumeTest, AFullQueueIsTriedAgainInsideTheStream) {
  server::ServerOptions options = Options();
  options.inference.max_queued_calls = 1;
  Start(options);
  ActionPipeline::Options pipelined;
  pipelined.retry = Patient();
  ActionPipeline pipeline(channel_, pipelined);
  std::vector<std::future<ActionPipeline::Result>> answers;
  std::vector<EpisodeHandle> episodes;
  for (int i = 0; i < 6; ++i) episodes.push_back(OpenEpisode(i, i));
  clock_.Hold();
  answers.push_back(pipeline.GetAction({Row(episodes[0], 0, 0)}));
  clock_.AwaitAsked();
  for (int i = 1; i < 6; ++i) {
    answers.push_back(pipeline.GetAction({Row(episodes[i], i, 0)}));
  }
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (pipeline.retries() == 0 && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  clock_.Release();
  for (auto& answer : answers) EXPECT_TRUE(answer.get().ok());
  EXPECT_EQ(server_->counters().actions_served, 6);
}

TEST_F(ClientResumeTest, AServerThatDoesNotAnswerIsGivenUpInTime) {
  for (const auto transport : {ActionPipeline::Transport::kStream,
                               ActionPipeline::Transport::kUnary}) {
    const EpisodeHandle episode{
        Open(absl::StrCat("env", static_cast<int>(transport))), 1};
    ActionPipeline::Options options;
    options.transport = transport;
    options.retry = Patient();
    options.retry.attempt_timeout = absl::Milliseconds(50);
    options.retry.give_up_after = absl::Milliseconds(200);
    ActionPipeline pipeline(channel_, options);
    clock_.Hold();
    const auto answer = pipeline.GetAction({Row(episode, 0, 0)}).get();
    EXPECT_TRUE(client::IsRetryable(answer.status())) << answer.status();
    EXPECT_GE(pipeline.retries(), 1);
    clock_.Release();
    EXPECT_OK(Act(Request(episode.id, 0)));
  }
}

TEST_F(ClientResumeTest, AnEndingPipelineFailsWhatIsUnderWay) {
  const EpisodeHandle episode = OpenEpisode(0, 1);
  std::vector<std::future<ActionPipeline::Result>> answers;
  clock_.Hold();
  for (const auto transport : {ActionPipeline::Transport::kStream,
                               ActionPipeline::Transport::kUnary}) {
    ActionPipeline::Options options;
    options.transport = transport;
    ActionPipeline pipeline(channel_, options);
    answers.push_back(pipeline.GetAction({Row(episode, 0, 0)}));
    clock_.AwaitAsked();
  }
  clock_.Release();
  for (auto& answer : answers) {
    EXPECT_THAT(answer.get().status(), StatusIs(Code::kCancelled));
  }
}

TEST_F(ClientResumeTest, AClientMayHoldTheStateItself) {
  PolicyClient client(channel_, Patient());
  std::vector<StepNumbers> played;
  std::string state;
  for (int64_t step = 0; step < 6; ++step) {
    StepRow row = Row({}, 0, step);
    row.client_episode = client::ClientEpisode{4, false};
    row.recurrent_state = state;
    const auto answer = client.GetAction({row});
    ASSERT_TRUE(answer.ok()) << answer.status();
    state = answer->front().recurrent_state;
    played.push_back({answer->front().actions, answer->front().log_probs,
                      answer->front().value});
  }
  ExpectSameSteps(played, PlayLocally(4, 0, 6), 1e-6f);
  EXPECT_EQ(server_->inference().open_episodes(), 0);
}

}  // namespace
}  // namespace esper::testing
