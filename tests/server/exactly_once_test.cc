// Steps are taken exactly once, whatever happens to the connections: clients
// play episodes over a proxy that resets connections all the time, while
// copies of their requests arrive before, with and after them over another
// one, and later steps before earlier ones. A run without any of this says what every answer must be.
//
// ESPER_EXACTLY_ONCE_STEPS: steps of all episodes together, 20000 by default.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/action_pipeline.h"
#include "client/policy_client.h"
#include "client/policy_messages.h"
#include "client/status.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "server/server.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tcp_proxy.h"

namespace esper::testing {
namespace {

using client::ActionPipeline;
using client::ActionRow;
using client::EpisodeHandle;
using client::PolicyClient;
using client::StepRow;

constexpr int kThreads = 4;
constexpr int kEnvironmentsPerThread = 16;
constexpr int kEnvironments = kThreads * kEnvironmentsPerThread;
constexpr int kRowsPerPipelinedRequest = 4;
constexpr float kRounding = 1e-4f;  // Of a product in another batch.

int64_t StepsPerEpisode() {
  int64_t steps = 20000;
  if (const char* wanted = std::getenv("ESPER_EXACTLY_ONCE_STEPS")) {
    EXPECT_TRUE(absl::SimpleAtoi(wanted, &steps)) << wanted;
  }
  return (steps + kEnvironments - 1) / kEnvironments;
}

policy::PolicySpec TinySpec() {
  policy::PolicySpec spec;
  spec.name = "tiny";
  spec.observation = {{"observation", 3}};
  policy::HeadSpec head;
  head.name = "action";
  head.size = 5;
  spec.sampling_order = {head.name};
  spec.heads = {head};
  spec.feature_dim = 8;
  spec.hidden_dim = 8;
  spec.mask_optional = true;
  return spec;
}

float RewardOf(int64_t step) { return 0.25f * static_cast<float>(step % 7); }

// What an environment is in at a step; the policy's answer changes nothing, so
// that any step can be asked for at any time.
StepRow RowOf(const EpisodeHandle& episode, int environment, int64_t step) {
  StepRow row;
  row.episode = episode;
  row.step = step;
  if (step > 0) {
    row.previous_outcome = client::StepOutcome();
    row.previous_outcome->reward = RewardOf(step - 1);
  }
  for (int i = 0; i < 3; ++i) {
    row.input.observation.push_back(
        std::sin(static_cast<float>((i + 1) * (environment + 3)) +
                 0.7f * static_cast<float>(step)));
  }
  return row;
}

struct Told {
  int64_t action = 0;
  float value = 0;
};

client::RetryPolicy Stubborn() {
  client::RetryPolicy retry;
  retry.attempt_timeout = absl::Seconds(10);
  retry.give_up_after = absl::Minutes(2);
  retry.initial_backoff = absl::Milliseconds(1);
  retry.max_backoff = absl::Milliseconds(50);
  return retry;
}

class ExactlyOnceTest : public ::testing::Test {
 protected:
  ExactlyOnceTest() {
    server::ServerOptions options;
    options.address = "127.0.0.1:0";
    options.spec = TinySpec();
    options.init_seed = 5;
    options.inference.workers = 2;
    options.inference.max_episodes = 2 * kEnvironments;
    auto server = server::Server::Create(options);
    EXPECT_OK(server);
    server_ = *std::move(server);
  }

  std::vector<EpisodeHandle> Open(const std::string& name) {
    std::vector<client::EpisodeStart> starts;
    for (int i = 0; i < kEnvironments; ++i) {
      starts.push_back({absl::StrCat(name, i), 1, 1000u + i, false});
    }
    auto handles = direct_->OpenEpisodes(starts);
    EXPECT_OK(handles);
    return *handles;
  }

  // [environment][step], one call for all environments at a time, undisturbed.
  void PlayUndisturbed() {
    const std::vector<EpisodeHandle> episodes = Open("reference");
    told_.assign(kEnvironments, {});
    for (int64_t step = 0; step < steps_; ++step) {
      std::vector<StepRow> rows;
      for (int i = 0; i < kEnvironments; ++i) {
        rows.push_back(RowOf(episodes[i], i, step));
      }
      const auto answer = direct_->GetAction(rows);
      ASSERT_TRUE(answer.ok()) << answer.status();
      for (int i = 0; i < kEnvironments; ++i) {
        told_[i].push_back({(*answer)[i].actions[0], (*answer)[i].value});
      }
    }
  }

  // Compares an answer with the undisturbed run.
  void Check(int environment, int64_t step, const ActionRow& row) {
    const Told& told = told_[environment][step];
    if (row.actions[0] != told.action ||
        !(std::abs(row.value - told.value) <= kRounding)) {
      ++wrong_;
    }
  }

  // Sends a copy of a request over a connection of its own, and does not wait.
  void Copy(std::vector<StepRow> rows, int first, int64_t step) {
    auto request = client::ToRequest(rows, false);
    ASSERT_OK(request);
    struct Call {
      grpc::ClientContext context;
      v1::GetActionRequest request;
      v1::GetActionResponse response;
    };
    auto call = std::make_shared<Call>();
    call->request = *std::move(request);
    ++copies_;
    ++copies_open_;
    copy_stub_->async()->GetAction(
        &call->context, &call->request, &call->response,
        [this, call, first, step](const grpc::Status& grpc_status) {
          const absl::Status status =
              client::FromGrpc(grpc_status, call->context);
          const std::string reason = client::ReasonOf(status);
          if (status.ok()) {
            const int rows = call->request.rows_size();
            const auto answer = client::FromResponse(call->response, rows);
            for (int i = 0; i < rows; ++i) Check(first + i, step, (*answer)[i]);
          } else if (reason == "STEP_OUT_OF_ORDER" || reason == "QUEUE_FULL") {
            ++copies_refused_;
          } else {
            ++wrong_;
          }
          --copies_open_;
        });
  }

  // A request that overtook another one is refused.
  void AskTooEarly(const std::vector<StepRow>& rows) {
    const auto request = client::ToRequest(rows, false);
    ASSERT_OK(request);
    grpc::ClientContext context;
    v1::GetActionResponse response;
    const grpc::Status status =
        copy_stub_->GetAction(&context, *request, &response);
    EXPECT_EQ(client::ReasonOf(client::FromGrpc(status, context)),
              "STEP_OUT_OF_ORDER");
    ++overtakers_;
  }

  // Plays the environments of one thread, and meddles.
  void Play(int thread, const std::vector<EpisodeHandle>& episodes) {
    std::mt19937 random(thread + 1);
    const auto chance = [&random](double p) {
      return std::uniform_real_distribution<double>()(random) < p;
    };
    client::ConnectOptions connect;
    connect.address = proxy_->address();
    auto channel = client::Connect(connect);
    ASSERT_OK(channel);
    const bool pipelined = thread % 2 == 1;
    PolicyClient client(*channel, Stubborn());
    ActionPipeline::Options options;
    options.retry = Stubborn();
    options.transport = thread % 4 == 1 ? ActionPipeline::Transport::kStream
                                        : ActionPipeline::Transport::kUnary;
    ActionPipeline pipeline(*channel, options);
    const int rows_per_call =
        pipelined ? kRowsPerPipelinedRequest : kEnvironmentsPerThread;
    const int begin = thread * kEnvironmentsPerThread;
    for (int64_t step = 0; step < steps_; ++step) {
      std::vector<std::future<ActionPipeline::Result>> answers;
      for (int first = begin; first < begin + kEnvironmentsPerThread;
           first += rows_per_call) {
        const auto rows_at = [&](int64_t at) {
          std::vector<StepRow> rows;
          for (int i = first; i < first + rows_per_call; ++i) {
            rows.push_back(RowOf(episodes[i], i, at));
          }
          return rows;
        };
        // Before anyone has asked for `step`: a client that asks for a step
        // has had the answer to the one before it.
        if (chance(0.1)) AskTooEarly(rows_at(step + 1));
        if (chance(0.2)) Copy(rows_at(step), first, step);
        if (pipelined) {
          answers.push_back(pipeline.GetAction(rows_at(step)));
        } else {
          std::promise<ActionPipeline::Result> answer;
          answer.set_value(client.GetAction(rows_at(step)));
          answers.push_back(answer.get_future());
        }
        if (chance(0.1)) Copy(rows_at(step), first, step);
        if (step > 0 && chance(0.1)) Copy(rows_at(step - 1), first, step - 1);
      }
      int environment = begin;
      for (auto& future : answers) {
        const ActionPipeline::Result answer = future.get();
        ASSERT_TRUE(answer.ok()) << answer.status();
        for (const ActionRow& row : *answer) Check(environment++, step, row);
      }
    }
    retries_ += pipeline.retries();
  }

  const int64_t steps_ = StepsPerEpisode();
  std::unique_ptr<server::Server> server_;
  std::unique_ptr<PolicyClient> direct_;
  std::unique_ptr<v1::PolicyInference::Stub> copy_stub_;
  std::unique_ptr<TcpProxy> proxy_;
  std::vector<std::vector<Told>> told_;  // [environment][step].
  std::atomic<int64_t> wrong_{0};
  std::atomic<int64_t> copies_{0};
  std::atomic<int64_t> copies_open_{0};
  std::atomic<int64_t> copies_refused_{0};
  std::atomic<int64_t> overtakers_{0};
  std::atomic<int64_t> retries_{0};
};

TEST_F(ExactlyOnceTest, NoStepIsLostOrTakenTwice) {
  direct_ = std::make_unique<PolicyClient>(server_->InProcessChannel());
  copy_stub_ = v1::PolicyInference::NewStub(
      grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()),
                          grpc::InsecureChannelCredentials()));
  proxy_ = std::make_unique<TcpProxy>(server_->port());
  PlayUndisturbed();
  if (HasFatalFailure()) return;
  const int64_t before = server_->counters().actions_served;

  const std::vector<EpisodeHandle> episodes = Open("disturbed");
  std::atomic<bool> done{false};
  std::thread cuts([&] {
    std::mt19937 random(99);
    while (!done) {
      absl::SleepFor(absl::Milliseconds(10 + random() % 80));
      proxy_->Cut();
    }
  });
  std::vector<std::thread> players;
  for (int thread = 0; thread < kThreads; ++thread) {
    players.emplace_back([&, thread] { Play(thread, episodes); });
  }
  for (std::thread& player : players) player.join();
  done = true;
  cuts.join();
  while (copies_open_ > 0) absl::SleepFor(absl::Milliseconds(1));

  // Every episode stands where it should, and has counted every reward once.
  double expected_return = 0;
  for (int64_t step = 0; step < steps_; ++step) {
    expected_return += RewardOf(step);
  }
  std::vector<client::EpisodeClose> closes;
  for (int i = 0; i < kEnvironments; ++i) {
    client::EpisodeClose close;
    close.episode = episodes[i];
    close.steps = steps_;
    close.last_outcome = client::StepOutcome();
    close.last_outcome->reward = RewardOf(steps_ - 1);
    close.end_kind = v1::END_KIND_TERMINATED;
    closes.push_back(std::move(close));
  }
  const auto closed = direct_->CloseEpisodes(closes);
  ASSERT_TRUE(closed.ok()) << closed.status();
  for (const auto& episode : *closed) {
    EXPECT_EQ(episode.episode_return, expected_return);
  }
  const int64_t taken = server_->counters().actions_served - before;
  EXPECT_EQ(taken, steps_ * kEnvironments);
  EXPECT_EQ(wrong_, 0);
  EXPECT_GT(proxy_->cut(), 0);
  EXPECT_GT(copies_, 0);
  EXPECT_GT(overtakers_, 0);
  std::cout << taken << " steps taken of " << steps_ * kEnvironments << ", "
            << wrong_ << " wrong answers; " << proxy_->cut()
            << " connections reset, " << retries_ << " pipelined retries, "
            << copies_ << " copies sent of which " << copies_refused_
            << " were refused, " << overtakers_
            << " requests that came too early, " << server_->counters().steps_repeated
            << " steps answered from memory\n";
}

}  // namespace
}  // namespace esper::testing
