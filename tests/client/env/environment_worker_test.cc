#include "client/env/environment_worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <thread>

#include "absl/time/clock.h"
#include "client/env/env_messages.h"
#include "client/env/heartbeat.h"
#include "client/listen.h"
#include "client/tensor.h"
#include "client/trainer/coordinator_service.h"
#include "core/env/tasks.h"
#include "tests/client/testing/fake_policy_server.h"

namespace esper::client {
namespace {

using ::testing::ElementsAre;
using testing::FakePolicyServer;
using testing::FastRetry;

constexpr int kEpochs = 3;
constexpr int kEnvironments = 2;

std::shared_ptr<const env::Task> Digits() {
  const char* path = std::getenv("ESPER_DIGITS");
  return env::LoadTask("digits",
                       path != nullptr ? path : "external/digits/digits.csv.gz")
      .value();
}

// The real worker and the real coordinator around a fake policy server.
class EnvironmentWorkerTest : public ::testing::Test {
 protected:
  EnvironmentWorkerTest() {
    CoordinatorService::Options options;
    options.max_epochs = kEpochs;
    options.options_json = R"({"samples_per_epoch": 64, "val_samples": 32})";
    options.poll = absl::Milliseconds(5);
    service_ = std::make_unique<CoordinatorService>(
        options, scheduler_, collector_, [](const FinishedEpisode&) {},
        absl::Now);
    listener_ = Listen({}, *service_).value();
    coordinator_ = std::make_unique<CoordinatorClient>(
        listener_.server->InProcessChannel({}), FastRetry());
    link_ = std::make_unique<CoordinatorLink>(*coordinator_, board_, "worker",
                                              kEnvironments);
    collector_.StartRound(1);
  }
  ~EnvironmentWorkerTest() override { listener_.server->Shutdown(); }

  void Start() {
    worker_ = std::thread([this] {
      EnvironmentWorker worker({kEnvironments, "digest"}, Digits(), policy_,
                               *link_, board_, stop_);
      result_ = worker.Run();
    });
  }
  absl::Status Join() {
    worker_.join();
    return result_;
  }
  // Waits for a condition that the worker's thread makes true.
  template <typename Condition>
  void WaitFor(Condition condition) {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    while (!condition() && absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(2));
    }
    ASSERT_TRUE(condition());
  }

  FakePolicyServer server_;
  PolicyClient policy_{server_.Channel(), FastRetry()};
  EpisodeScheduler scheduler_{{}};
  EpisodeCollector collector_;
  std::unique_ptr<CoordinatorService> service_;
  Listener listener_;
  std::unique_ptr<CoordinatorClient> coordinator_;
  LeaseBoard board_;
  std::unique_ptr<CoordinatorLink> link_;
  StopSignal stop_;
  absl::Status result_;
  std::thread worker_;
};

TEST_F(EnvironmentWorkerTest, DeliversWholeEpisodesWithOneCallPerRound) {
  scheduler_.StartRound(4);
  Start();
  ASSERT_EQ(collector_.WaitFor(4, absl::Seconds(60)), 4);
  scheduler_.Stop();
  EXPECT_TRUE(Join().ok());
  EXPECT_EQ(server_.inference.open_episodes(), 0);

  const auto calls = server_.inference.acted();
  ASSERT_EQ(calls.size(), 2 * kEpochs);  // Twice two episodes side by side.
  for (size_t i = 0; i < calls.size(); ++i) {
    ASSERT_EQ(calls[i].rows_size(), kEnvironments);
    for (const v1::StepRow& row : calls[i].rows()) {
      EXPECT_EQ(row.step(), i % kEpochs);
      EXPECT_EQ(row.has_previous_outcome(), row.step() > 0);
    }
  }

  const auto episodes = collector_.Take();
  for (const FinishedEpisode& episode : episodes) {
    const v1::Trajectory& trajectory = episode.trajectory;
    EXPECT_EQ(trajectory.spec_digest(), "digest");
    EXPECT_EQ(trajectory.end_kind(), v1::END_KIND_TRUNCATED);
    EXPECT_EQ(trajectory.bootstrap_value(), 1.5f);
    EXPECT_THAT(trajectory.observations().shape(), ElementsAre(kEpochs, 116));
    EXPECT_THAT(trajectory.categorical().shape(), ElementsAre(kEpochs, 3));
    EXPECT_THAT(trajectory.action_masks().shape(), ElementsAre(kEpochs, 7));
    EXPECT_THAT(trajectory.actions().shape(), ElementsAre(kEpochs, 8));
    EXPECT_THAT(trajectory.behaviour().log_probs().shape(),
                ElementsAre(kEpochs, 8));
    EXPECT_THAT(*UnpackTensor<float>(trajectory.behaviour().values(), {kEpochs},
                                     "values"),
                ElementsAre(0, 1, 2));
    EXPECT_EQ(episode.summary.steps(), kEpochs);
    EXPECT_EQ(episode.steps.size(), kEpochs);
    EXPECT_EQ(episode.steps[0].op(), "WAIT");
    EXPECT_EQ(episode.steps[0].slots_size(), 3);
    // Rewards as they were sent, one step later, to the server.
    const auto rewards =
        UnpackTensor<float>(trajectory.rewards(), {kEpochs}, "rewards").value();
    double sum = 0;
    for (const float reward : rewards) sum += reward;
    EXPECT_NEAR(sum, episode.summary.episode_return(), 1e-5);
  }
}

TEST_F(EnvironmentWorkerTest, RunsEpisodesAgainThatTheServerForgot) {
  scheduler_.StartRound(2);
  server_.faults.Push("GetAction", {absl::UnavailableError("gone"), true});
  Start();
  WaitFor([this] { return server_.inference.acted().size() >= 3; });
  server_.inference.ForgetEpisodes();
  ASSERT_EQ(collector_.WaitFor(2, absl::Seconds(60)), 2);
  scheduler_.Stop();
  EXPECT_TRUE(Join().ok());
  const auto episodes = collector_.Take();
  EXPECT_EQ(episodes[0].lease.episode, 0);
  EXPECT_EQ(episodes[1].lease.episode, 1);
}

TEST_F(EnvironmentWorkerTest, ARefusedCloseCostsOneEpisodeOnly) {
  scheduler_.StartRound(2);
  server_.faults.Push("CloseEpisodes",
                      {testing::RowRefusal("UNKNOWN_EPISODE", 0), false});
  Start();
  ASSERT_EQ(collector_.WaitFor(2, absl::Seconds(60)), 2);
  scheduler_.Stop();
  EXPECT_TRUE(Join().ok());
  EXPECT_EQ(service_->aborted_episodes(), 1);
  EXPECT_EQ(scheduler_.open_leases(), 0);
}

TEST_F(EnvironmentWorkerTest, DeliversEvaluationEpisodesWithoutTrajectories) {
  collector_.StartRound(1, /*evaluation=*/true);
  scheduler_.StartEvaluation(2);
  Start();
  ASSERT_EQ(collector_.WaitFor(2, absl::Seconds(60)), 2);
  scheduler_.Stop();
  EXPECT_TRUE(Join().ok());
  EXPECT_TRUE(server_.inference.opened()[0].episodes(0).deterministic());
  for (const FinishedEpisode& episode : collector_.Take()) {
    EXPECT_EQ(episode.summary.steps(), kEpochs);
    EXPECT_EQ(episode.steps.size(), kEpochs);
    EXPECT_FALSE(episode.trajectory.has_observations());
  }
}

// Leases three episodes to whoever asks for any.
class GenerousCoordinator final : public v1::Coordinator::Service {
 public:
  grpc::Status RegisterWorker(grpc::ServerContext*,
                              const v1::RegisterWorkerRequest*,
                              v1::RegisterWorkerResponse* response) override {
    response->set_worker_id("w");
    return grpc::Status::OK;
  }
  grpc::Status LeaseEpisodes(grpc::ServerContext*,
                             const v1::LeaseEpisodesRequest*,
                             v1::LeaseEpisodesResponse* response) override {
    if (asked_) {
      response->set_done(reports == kEnvironments);
      return grpc::Status::OK;
    }
    asked_ = true;
    for (int i = 0; i < kEnvironments + 1; ++i) {
      v1::EpisodeLease* lease = response->add_leases();
      lease->set_lease_id(std::to_string(i));
      lease->set_environment_key(std::to_string(i));
      lease->set_incarnation(1);
      lease->set_task("digits");
      lease->set_max_epochs(1);
      lease->set_options_json(
          R"({"samples_per_epoch": 64, "val_samples": 32})");
    }
    return grpc::Status::OK;
  }
  grpc::Status ReportEpisode(grpc::ServerContext*,
                             const v1::ReportEpisodeRequest*,
                             v1::ReportEpisodeResponse*) override {
    ++reports;
    return grpc::Status::OK;
  }

  int reports = 0;  // Read when the worker has ended.

 private:
  bool asked_ = false;
};

TEST_F(EnvironmentWorkerTest, TakesNoMoreLeasesThanItAskedFor) {
  GenerousCoordinator generous;
  listener_.server->Shutdown();
  listener_ = Listen({}, generous).value();
  CoordinatorClient client(listener_.server->InProcessChannel({}), FastRetry());
  link_ = std::make_unique<CoordinatorLink>(client, board_, "worker",
                                            kEnvironments);
  Start();
  EXPECT_TRUE(Join().ok());
  EXPECT_EQ(generous.reports, kEnvironments);
  ASSERT_EQ(server_.inference.opened().size(), 1);
  EXPECT_EQ(server_.inference.opened()[0].episodes_size(), kEnvironments);
  listener_.server->Shutdown();
}

TEST(EnvMessagesTest, AStepReportHasTheErrorsOfWhatWasMeasured) {
  env::StepResult result;
  result.slots.resize(2);
  result.slots[0].contribution = 2.5;
  result.contribution_mask = {1, 0};
  result.contribution_targets = {2.5f, 0};
  result.contribution_errors = {0.5f, 0};
  const v1::StepReport report = ToStepReport(result, {"r0c0", "r0c1"});
  EXPECT_EQ(report.slots(0).contribution_error(), 0.5);
  EXPECT_FALSE(report.slots(1).has_contribution());
  EXPECT_FALSE(report.slots(1).has_contribution_error());
}

TEST_F(EnvironmentWorkerTest, GivesEverythingBackWhenItIsStopped) {
  scheduler_.StartRound(100);
  Start();
  WaitFor([this] { return !server_.inference.acted().empty(); });
  stop_.Stop();
  EXPECT_TRUE(Join().ok());
  EXPECT_EQ(server_.inference.open_episodes(), 0);
  EXPECT_EQ(scheduler_.open_leases(), 0);
  EXPECT_TRUE(board_.Leases().empty());
}

TEST_F(EnvironmentWorkerTest, GivesBackLeasesThatItCannotRun) {
  listener_.server->Shutdown();
  CoordinatorService::Options options;
  options.task = "letters";
  CoordinatorService service(
      options, scheduler_, collector_, [](const FinishedEpisode&) {},
      absl::Now);
  listener_ = Listen({}, service).value();
  CoordinatorClient client(listener_.server->InProcessChannel({}), FastRetry());
  link_ = std::make_unique<CoordinatorLink>(client, board_, "worker", 1);
  scheduler_.StartRound(1);
  Start();
  WaitFor([&] { return service.aborted_episodes() >= 3; });
  EXPECT_EQ(scheduler_.failed_episodes(), 1);
  scheduler_.Stop();
  EXPECT_TRUE(Join().ok());
  EXPECT_TRUE(server_.inference.opened().empty());
  listener_.server->Shutdown();
}

TEST_F(EnvironmentWorkerTest, EndsWithAnErrorThatNoEpisodeIsAtFaultFor) {
  scheduler_.StartRound(2);
  server_.faults.Push("GetAction",
                      {Refusal(absl::StatusCode::kInvalidArgument, "BAD_SHAPE",
                               "Another policy is served."),
                       false});
  Start();
  EXPECT_EQ(Join().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(server_.inference.open_episodes(), 0);
}

TEST_F(EnvironmentWorkerTest, HeartbeatsKeepRevokeAndEndTheWork) {
  ASSERT_TRUE(link_->Register().ok());
  board_.Add("nonsense");
  board_.CountSteps(5);
  std::string reason;
  absl::Notification stopped;
  Heartbeat::Options options;
  options.interval = absl::Milliseconds(2);
  Heartbeat heartbeat(options, *coordinator_, board_,
                      [&](const std::string& why) {
                        reason = why;
                        stopped.Notify();
                      });
  WaitFor([this] { return !board_.Revoked().empty(); });
  EXPECT_EQ(service_->heartbeat_steps(), 5);
  EXPECT_FALSE(board_.run_ended());
  scheduler_.Stop();
  stopped.WaitForNotification();
  EXPECT_TRUE(board_.run_ended());
  EXPECT_EQ(reason, "the coordinator says that the run is over");
}

}  // namespace
}  // namespace esper::client
