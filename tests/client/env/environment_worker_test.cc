#include "client/env/environment_worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "client/env/env_messages.h"
#include "client/env/heartbeat.h"
#include "client/listen.h"
#include "client/tensor.h"
#include "client/trainer/coordinator_service.h"
#include "core/env/tasks.h"
#include "core/policy/action_mask.h"
#include "core/policy/actions.h"
#include "tests/client/testing/fake_policy_server.h"

namespace esper::client {
namespace {

using ::testing::ElementsAre;
using testing::FakePolicyServer;
using testing::FastRetry;

constexpr int kEpochs = 3;
constexpr int kEnvironments = 4;

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

TEST_F(EnvironmentWorkerTest, DeliversWholeEpisodesWithOneCallPerHalf) {
  scheduler_.StartRound(2 * kEnvironments);
  Start();
  ASSERT_EQ(collector_.WaitFor(2 * kEnvironments, absl::Seconds(60)),
            2 * kEnvironments);
  scheduler_.Stop();
  EXPECT_TRUE(Join().ok());
  EXPECT_EQ(server_.inference.open_episodes(), 0);

  // Two halves, twice; every call has the rows of a whole half.
  const auto calls = server_.inference.acted();
  ASSERT_EQ(calls.size(), 2 * 2 * kEpochs);
  std::map<std::string, int> steps;  // By episode.
  for (const v1::GetActionRequest& call : calls) {
    ASSERT_EQ(call.rows_size(), kEnvironments / 2);
    for (const v1::StepRow& row : call.rows()) {
      EXPECT_EQ(row.step(), steps[row.episode_id()]++);
      EXPECT_EQ(row.has_previous_outcome(), row.step() > 0);
    }
  }
  EXPECT_EQ(steps.size(), 2 * kEnvironments);

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

// A policy that takes random legal actions: a function of environment key, step
// and masks. May hold its answers back.
class RandomInference final : public v1::PolicyInference::Service {
 public:
  grpc::Status OpenEpisodes(grpc::ServerContext* context,
                            const v1::OpenEpisodesRequest* request,
                            v1::OpenEpisodesResponse* response) override {
    const grpc::Status status = fake_.OpenEpisodes(context, request, response);
    absl::MutexLock lock(&mu_);
    for (int i = 0; i < response->episode_ids_size(); ++i) {
      keys_[response->episode_ids(i)] = request->episodes(i).environment_key();
    }
    return status;
  }
  grpc::Status GetAction(grpc::ServerContext* context,
                         const v1::GetActionRequest* request,
                         v1::GetActionResponse* response) override {
    const grpc::Status status = fake_.GetAction(context, request, response);
    const int64_t rows = request->rows_size();
    const auto masks =
        UnpackTensor<uint8_t>(request->action_masks(), {rows, 7}, "masks")
            .value();
    std::vector<uint8_t> actions;
    for (int64_t i = 0; i < rows; ++i) {
      const auto mask = policy::UnpackMaskBits(
          std::string(masks.begin() + 7 * i, masks.begin() + 7 * i + 7), 3);
      for (const int64_t choice : Act(*mask, request->rows(i))) {
        actions.push_back(static_cast<uint8_t>(choice));
      }
    }
    *response->mutable_actions() = PackTensor(actions, {rows, 8});
    if (hold != nullptr) hold(KeysOf(*request));
    return status;
  }
  grpc::Status CloseEpisodes(grpc::ServerContext* context,
                             const v1::CloseEpisodesRequest* request,
                             v1::CloseEpisodesResponse* response) override {
    return fake_.CloseEpisodes(context, request, response);
  }

  // Called before each answer of GetAction with the environments it is for.
  std::function<void(const std::set<std::string>& keys)> hold;

 private:
  std::set<std::string> KeysOf(const v1::GetActionRequest& request) {
    absl::MutexLock lock(&mu_);
    std::set<std::string> keys;
    for (const v1::StepRow& row : request.rows()) {
      keys.insert(keys_[row.episode_id()]);
    }
    return keys;
  }
  std::array<int64_t, policy::kNumActionHeads> Act(
      const policy::ActionMask& mask, const v1::StepRow& row) {
    std::string key;
    {
      absl::MutexLock lock(&mu_);
      key = keys_[row.episode_id()];
    }
    uint64_t draw = 1469598103934665603u + row.step();  // FNV-1a.
    for (const char c : key) draw = (draw ^ c) * 1099511628211u;
    policy::FactoredAction action;
    // Plants as soon as it may and advances from then on, mostly.
    for (const policy::Op op : {policy::Op::kGerminate, policy::Op::kAdvance}) {
      for (int slot = 0; slot < mask.num_slots; ++slot) {
        draw = (draw ^ slot) * 1099511628211u;
        if (!mask.AllowsSlot(op, slot) || draw >> 62 == 0) continue;
        action.op = op;
        action.slot = slot;
        action.blueprint = policy::BlueprintIndex("norm");
      }
    }
    return action.ToIndices();
  }

  testing::Faults faults_;
  testing::FakeInference fake_{faults_};
  absl::Mutex mu_;
  std::map<std::string, std::string> keys_ ABSL_GUARDED_BY(mu_);
};

// Episodes of a worker with `environments`, by environment key.
std::map<std::string, FinishedEpisode> PlayWith(int environments,
                                                int episodes) {
  constexpr int kLength = 8;
  RandomInference inference;
  Listener policy_listener = Listen({}, inference).value();
  PolicyClient policy(policy_listener.server->InProcessChannel({}),
                      FastRetry());
  EpisodeScheduler scheduler{{}};
  EpisodeCollector collector;
  CoordinatorService::Options options;
  options.max_epochs = kLength;
  options.options_json = R"({"samples_per_epoch": 64, "val_samples": 32})";
  options.poll = absl::Milliseconds(5);
  CoordinatorService service(
      options, scheduler, collector, [](const FinishedEpisode&) {}, absl::Now);
  Listener listener = Listen({}, service).value();
  CoordinatorClient coordinator(listener.server->InProcessChannel({}),
                                FastRetry());
  LeaseBoard board;
  CoordinatorLink link(coordinator, board, "worker", environments);
  StopSignal stop;
  collector.StartRound(1);
  scheduler.StartRound(episodes);
  std::thread thread([&] {
    EnvironmentWorker worker({environments, "digest"}, Digits(), policy, link,
                             board, stop);
    EXPECT_TRUE(worker.Run().ok());
  });
  EXPECT_EQ(collector.WaitFor(episodes, absl::Seconds(120)), episodes);
  scheduler.Stop();
  thread.join();
  std::map<std::string, FinishedEpisode> finished;
  for (FinishedEpisode& episode : collector.Take()) {
    finished[episode.lease.environment_key] = std::move(episode);
  }
  listener.server->Shutdown();
  policy_listener.server->Shutdown();
  return finished;
}

TEST(EnvironmentWorkerDeterminismTest,
     EpisodesDoNotDependOnHowManyAProcessHas) {
  constexpr int kEpisodes = 8;
  const auto alone = PlayWith(1, kEpisodes);
  const auto beside = PlayWith(8, kEpisodes);
  ASSERT_EQ(alone.size(), kEpisodes);
  ASSERT_EQ(beside.size(), kEpisodes);
  int germinated = 0;
  for (const auto& [key, episode] : alone) {
    const FinishedEpisode& other = beside.at(key);
    EXPECT_EQ(episode.trajectory.SerializeAsString(),
              other.trajectory.SerializeAsString())
        << key;
    EXPECT_EQ(episode.summary.host_accuracy(), other.summary.host_accuracy());
    germinated += episode.summary.seeds_germinated();
  }
  EXPECT_GT(germinated, 0);
}

TEST_F(EnvironmentWorkerTest, StepsOneHalfWhileTheOtherHalfWaits) {
  RandomInference inference;
  // No answer to the second half before the first half has stepped: a worker
  // that waits for both would never step. The calls may come in any order.
  std::atomic<bool> held{false};
  std::atomic<int64_t> steps_before_answer{0};
  inference.hold = [&](const std::set<std::string>& keys) {
    if (keys.count("run/0") == 1 || held.exchange(true)) return;
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    while (steps_before_answer == 0 && absl::Now() < deadline) {
      steps_before_answer += board_.TakeSteps();
      absl::SleepFor(absl::Milliseconds(1));
    }
  };
  Listener listener = Listen({}, inference).value();
  PolicyClient policy(listener.server->InProcessChannel({}), FastRetry());
  scheduler_.StartRound(kEnvironments);
  std::thread thread([&] {
    EnvironmentWorker worker({kEnvironments, "digest"}, Digits(), policy,
                             *link_, board_, stop_);
    EXPECT_TRUE(worker.Run().ok());
  });
  EXPECT_EQ(collector_.WaitFor(kEnvironments, absl::Seconds(60)),
            kEnvironments);
  scheduler_.Stop();
  thread.join();
  EXPECT_EQ(steps_before_answer, kEnvironments / 2);
  listener.server->Shutdown();
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
