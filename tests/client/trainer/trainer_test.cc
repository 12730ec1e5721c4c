#include "client/trainer/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "client/coordinator_client.h"
#include "client/listen.h"
#include "client/status.h"
#include "tests/client/testing/fake_policy_server.h"
#include "tests/client/trainer/testing_episodes.h"
#include "tests/testing/status_matchers.h"

namespace esper::client {
namespace {

using ::esper::testing::StatusIs;
using ::testing::ElementsAre;
using testing::FakePolicyServer;
using testing::FastRetry;
using testing::MakeEpisode;
using Code = absl::StatusCode;

std::unique_ptr<PolicyLearner> MakeLearner(FakePolicyServer& server) {
  return std::make_unique<PolicyLearner>(
      std::make_unique<PolicyClient>(server.Channel(), FastRetry()),
      std::make_unique<TrainingClient>(server.Channel(), FastRetry()),
      std::make_unique<AdminClient>(server.Channel(), FastRetry()), "me");
}

TEST(EpisodeCollectorTest, TakesEpisodesOfExactlyOneVersion) {
  EpisodeCollector collector;
  collector.StartRound(3);
  const FinishedEpisode current = MakeEpisode(1, 3);
  EXPECT_EQ(collector.Check(current.summary, current.trajectory).value(), 3);
  FinishedEpisode mixed = MakeEpisode(0, 3);
  *mixed.trajectory.mutable_policy_versions() =
      PackTensor(std::vector<int64_t>{2, 3}, {2});
  const absl::Status stale =
      collector.Check(mixed.summary, mixed.trajectory).status();
  EXPECT_THAT(stale, StatusIs(Code::kFailedPrecondition));
  EXPECT_EQ(ReasonOf(stale), "STALE_BEHAVIOUR");
  FinishedEpisode shorter = MakeEpisode(0, 3);
  shorter.summary.set_steps(3);
  EXPECT_THAT(collector.Check(shorter.summary, shorter.trajectory),
              StatusIs(Code::kInvalidArgument));
  FinishedEpisode aborted = MakeEpisode(0, 3);
  aborted.summary.set_end_kind(v1::END_KIND_ABORTED);
  EXPECT_THAT(collector.Check(aborted.summary, aborted.trajectory),
              StatusIs(Code::kInvalidArgument));
  EXPECT_EQ(collector.stale_episodes(), 1);

  collector.Add(current);
  collector.Add(MakeEpisode(0, 3));
  collector.Add(MakeEpisode(2, 2));  // Checked before the round began.
  EXPECT_EQ(collector.WaitFor(2, absl::ZeroDuration()), 2);
  const auto episodes = collector.Take();
  ASSERT_EQ(episodes.size(), 2);
  EXPECT_EQ(episodes[0].lease.episode, 0);
  EXPECT_EQ(collector.WaitFor(1, absl::ZeroDuration()), 0);
  EXPECT_EQ(collector.stale_episodes(), 2);
}

TEST(EpisodeCollectorTest, KeepsEvaluationAndTrainingApart) {
  EpisodeCollector collector;
  collector.StartRound(3, /*evaluation=*/true);
  FinishedEpisode evaluation = MakeEpisode(0, 3);
  evaluation.lease.evaluation = true;
  EXPECT_EQ(collector.CheckEvaluation(evaluation.summary).value(), 3);
  v1::EpisodeSummary endless;
  EXPECT_THAT(collector.CheckEvaluation(endless),
              StatusIs(Code::kInvalidArgument));
  collector.Add(evaluation);
  collector.Add(MakeEpisode(1, 3));
  EXPECT_EQ(collector.Take().size(), 1);
  collector.StartRound(3);
  collector.Add(evaluation);
  EXPECT_EQ(collector.Take().size(), 0);
  EXPECT_EQ(collector.stale_episodes(), 2);
}

// The coordinator's service, called as its stub would.
class CoordinatorServiceTest : public ::testing::Test {
 protected:
  CoordinatorServiceTest() {
    worker_ = scheduler_.Register("w", 1, absl::UnixEpoch()).value();
  }
  v1::EpisodeLease Lease() {
    v1::LeaseEpisodesRequest request;
    request.set_worker_id(worker_);
    request.set_max_episodes(1);
    v1::LeaseEpisodesResponse response;
    grpc::ServerContext context;
    EXPECT_TRUE(service_.LeaseEpisodes(&context, &request, &response).ok());
    return response.leases(0);
  }
  v1::ReportEpisodeRequest ReportOf(const v1::EpisodeLease& lease) {
    const FinishedEpisode episode = MakeEpisode(0, 1);
    v1::ReportEpisodeRequest report;
    report.set_worker_id(worker_);
    report.set_lease_id(lease.lease_id());
    *report.mutable_summary() = episode.summary;
    if (!lease.evaluation()) *report.mutable_trajectory() = episode.trajectory;
    return report;
  }
  bool Report(const v1::ReportEpisodeRequest& report) {
    v1::ReportEpisodeResponse response;
    grpc::ServerContext context;
    return service_.ReportEpisode(&context, &report, &response).ok();
  }

  EpisodeScheduler scheduler_{{}};
  EpisodeCollector collector_;
  int for_training_ = 0;
  std::function<void()> on_time_ = [] {};
  CoordinatorService service_{{},
                              scheduler_,
                              collector_,
                              [this](const auto&) { ++for_training_; },
                              [this] {
                                on_time_();
                                return absl::UnixEpoch();
                              }};
  std::string worker_;
};

TEST_F(CoordinatorServiceTest, AnEpisodeKeepsTheVersionThatActedInIt) {
  collector_.StartRound(1);
  scheduler_.StartRound(1);
  const auto lease = Lease();
  // The next round begins while the report is under way.
  on_time_ = [this] { collector_.StartRound(2); };
  EXPECT_TRUE(Report(ReportOf(lease)));
  EXPECT_TRUE(collector_.Take().empty());
  EXPECT_EQ(collector_.stale_episodes(), 1);
}

TEST_F(CoordinatorServiceTest, AcceptsEvaluationEpisodesWithoutATrajectory) {
  collector_.StartRound(1, /*evaluation=*/true);
  scheduler_.StartEvaluation(1);
  auto lease = Lease();
  ASSERT_TRUE(lease.evaluation());
  v1::ReportEpisodeRequest given_up = ReportOf(lease);
  given_up.mutable_summary()->set_end_kind(v1::END_KIND_ABORTED);
  EXPECT_TRUE(Report(given_up));
  EXPECT_EQ(service_.aborted_episodes(), 1);
  lease = Lease();
  EXPECT_TRUE(Report(ReportOf(lease)));
  EXPECT_TRUE(Report(ReportOf(lease)));  // Again: a duplicate.
  EXPECT_EQ(service_.aborted_episodes(), 1);
  EXPECT_EQ(for_training_, 0);
  EXPECT_EQ(collector_.Take().size(), 1);
}

TEST(PolicyLearnerTest, MakesThePassesOfAnUpdateAndPublishesOnce) {
  FakePolicyServer server;
  auto learner = MakeLearner(server);
  EXPECT_EQ(learner->Prepare(absl::UnixEpoch()).value(), 1);
  auto report = learner->Update({MakeEpisode(0), MakeEpisode(1)}, {});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->passes, 3);
  EXPECT_EQ(report->optimizer_steps, 3);
  EXPECT_EQ(report->transitions, 20);
  EXPECT_EQ(report->weights_change_l2, 0.75);
  EXPECT_EQ(report->ratio_check_max, 1e-6);
  EXPECT_TRUE(report->published);
  EXPECT_EQ(report->policy_version, 2);
  EXPECT_EQ(server.inference.version, 2);
}

// The episodes of a request, by their number.
std::vector<int> RowsOf(const v1::ForwardBackwardRequest& request,
                        const std::vector<FinishedEpisode>& episodes) {
  std::vector<int> rows;
  for (const v1::Trajectory& trajectory : request.batch().trajectories()) {
    for (size_t i = 0; i < episodes.size(); ++i) {
      if (trajectory.SerializeAsString() ==
          episodes[i].trajectory.SerializeAsString()) {
        rows.push_back(static_cast<int>(i));
      }
    }
  }
  return rows;
}

// Episodes whose trajectories can be told apart.
std::vector<FinishedEpisode> DistinctEpisodes(int count) {
  std::vector<FinishedEpisode> episodes;
  for (int i = 0; i < count; ++i) {
    episodes.push_back(MakeEpisode(i));
    episodes.back().trajectory.set_episode_key(absl::StrCat("e", i));
  }
  return episodes;
}

TEST(PolicyLearnerTest, MinibatchesCoverTheBatchOncePerPass) {
  FakePolicyServer server;
  auto learner = MakeLearner(server);
  ASSERT_TRUE(learner->Prepare(absl::UnixEpoch()).ok());
  const auto episodes = DistinctEpisodes(5);
  UpdateOptions options;
  options.passes = 2;
  options.minibatches = 2;
  options.profile = v1::PROFILE_UPSTREAM;
  options.loss.set_gamma(0.9);
  auto report = learner->Update(episodes, options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->passes, 2);
  EXPECT_EQ(report->optimizer_steps, 4);
  EXPECT_EQ(report->transitions, 50);
  EXPECT_NEAR(report->approx_kl, 0.0025, 1e-12);
  EXPECT_THAT(report->anomalies, ElementsAre("ratio_explosion"));
  EXPECT_EQ(server.inference.version, 2);

  const auto& requests = server.training.requests;
  ASSERT_EQ(requests.size(), 5);
  EXPECT_TRUE(requests[0].first_pass());
  EXPECT_TRUE(requests[0].totals_only());
  EXPECT_THAT(RowsOf(requests[0], episodes), ElementsAre(0, 1, 2, 3, 4));
  std::vector<int> orders[2];
  for (int i = 0; i < 4; ++i) {
    const v1::ForwardBackwardRequest& part = requests[1 + i];
    EXPECT_FALSE(part.first_pass());
    EXPECT_FALSE(part.totals_only());
    EXPECT_TRUE(part.minibatch());
    EXPECT_EQ(part.totals().advantage_mean(), 5);  // Of the whole batch.
    EXPECT_EQ(part.ppo().gamma(), 0.9);
    EXPECT_EQ(part.profile(), v1::PROFILE_UPSTREAM);
    for (const int row : RowsOf(part, episodes)) orders[i / 2].push_back(row);
  }
  EXPECT_NE(orders[0], orders[1]);
  for (std::vector<int>& order : orders) {
    std::sort(order.begin(), order.end());
    EXPECT_THAT(order, ElementsAre(0, 1, 2, 3, 4));
  }
}

TEST(PolicyLearnerTest, AMinibatchThatDivergesEndsTheUpdate) {
  FakePolicyServer server;
  server.training.kl_stop_at_pass = 2;
  auto learner = MakeLearner(server);
  ASSERT_TRUE(learner->Prepare(absl::UnixEpoch()).ok());
  UpdateOptions options;
  options.minibatches = 2;
  auto report = learner->Update(DistinctEpisodes(4), options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->kl_stopped);
  EXPECT_EQ(report->passes, 2);
  EXPECT_EQ(report->optimizer_steps, 2);
  EXPECT_TRUE(report->published);
  EXPECT_EQ(server.inference.version, 2);
}

TEST(PolicyLearnerTest, AnUpdateThatWasTakenBackPublishesNothing) {
  FakePolicyServer server;
  server.training.roll_back_at_pass = 1;
  auto learner = MakeLearner(server);
  ASSERT_TRUE(learner->Prepare(absl::UnixEpoch()).ok());
  auto report = learner->Update({MakeEpisode(0)}, {});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->rolled_back);
  EXPECT_EQ(report->optimizer_steps, 0);
  EXPECT_EQ(report->weights_change_l2, 0);
  EXPECT_FALSE(report->published);
  EXPECT_EQ(server.inference.version, 1);
  // The next one goes on as if it had not been.
  server.training.roll_back_at_pass = -1;
  EXPECT_EQ(learner->Prepare(absl::UnixEpoch()).value(), 1);
  EXPECT_EQ(learner->Update({MakeEpisode(0)}, {})->policy_version, 2);
}

TEST(PolicyLearnerTest, RefusesAServerWithAnotherLearner) {
  FakePolicyServer server;
  server.training.learner.set_popart(true);
  server.training.learner.set_beta1(0.9);
  v1::LearnerConfig expected;
  expected.set_beta1(0.9);
  const auto prepare = [&] {
    return PolicyLearner(
               std::make_unique<PolicyClient>(server.Channel(), FastRetry()),
               std::make_unique<TrainingClient>(server.Channel(), FastRetry()),
               std::make_unique<AdminClient>(server.Channel(), FastRetry()),
               "me", expected)
        .Prepare(absl::UnixEpoch());
  };
  EXPECT_TRUE(prepare().ok());
  expected.set_popart(false);
  const auto refused = prepare();
  EXPECT_THAT(refused, StatusIs(Code::kFailedPrecondition));
  EXPECT_THAT(std::string(refused.status().message()),
              ::testing::HasSubstr("learner.popart is false"));
}

TEST(PolicyLearnerTest, PublishesWhatWasDoneBeforeTheDivergenceStoppedIt) {
  FakePolicyServer server;
  server.training.kl_stop_at_pass = 1;
  auto learner = MakeLearner(server);
  ASSERT_TRUE(learner->Prepare(absl::UnixEpoch()).ok());
  auto report = learner->Update({MakeEpisode(0)}, {});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->kl_stopped);
  EXPECT_EQ(report->optimizer_steps, 1);
  EXPECT_TRUE(report->published);
  EXPECT_EQ(server.inference.version, 2);

  server.training.kl_stop_at_pass = 0;
  report = learner->Update({MakeEpisode(0)}, {});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->optimizer_steps, 0);
  EXPECT_FALSE(report->published);
  EXPECT_EQ(server.inference.version, 2);
}

TEST(PolicyLearnerTest, PublishesTheRestOfAnUpdateThatFailedHalfWay) {
  FakePolicyServer server;
  auto learner = MakeLearner(server);
  ASSERT_TRUE(learner->Prepare(absl::UnixEpoch()).ok());
  server.faults.Push("OptimStep", {absl::InternalError("broken"), true});
  EXPECT_THAT(learner->Update({MakeEpisode(0)}, {}), StatusIs(Code::kInternal));
  EXPECT_EQ(server.inference.version, 1);
  EXPECT_EQ(learner->Prepare(absl::UnixEpoch()).value(), 2);
  EXPECT_EQ(learner->Prepare(absl::UnixEpoch()).value(), 2);
}

TEST(PolicyLearnerTest, RestoresItsCheckpointOnAServerThatLostItsState) {
  FakePolicyServer server;
  auto learner = MakeLearner(server);
  ASSERT_TRUE(learner->Prepare(absl::UnixEpoch()).ok());
  ASSERT_TRUE(learner->Update({MakeEpisode(0)}, {}).ok());
  EXPECT_EQ(learner->SaveCheckpoint().value().name, "v2");
  server.inference.version = 1;
  EXPECT_EQ(learner->Prepare(absl::UnixEpoch()).value(), 2);
  // The restore ended the lease that the update needs.
  EXPECT_TRUE(learner->Update({MakeEpisode(0)}, {}).ok());
  EXPECT_EQ(server.inference.version, 3);
}

TEST(PolicyLearnerTest, DoesNotRestoreUnderTheLeaseOfAnother) {
  FakePolicyServer server;
  server.admin.checkpoints["v2"] = 2;
  auto learner = MakeLearner(server);
  learner->set_checkpoint({"v2", 2});
  server.faults.Push("AcquireLearner",
                     {Refusal(Code::kAborted, "STALE_LEASE", "Taken."), false});
  EXPECT_THAT(learner->Prepare(absl::UnixEpoch()), StatusIs(Code::kAborted));
  EXPECT_EQ(server.inference.version, 1);
  EXPECT_EQ(learner->Prepare(absl::UnixEpoch()).value(), 2);
}

TEST(PolicyLearnerTest, ARefusedFirstPassLeavesNothingToPublish) {
  FakePolicyServer server;
  auto learner = MakeLearner(server);
  ASSERT_TRUE(learner->Prepare(absl::UnixEpoch()).ok());
  server.training.token = 99;  // The server was restarted.
  EXPECT_THAT(learner->Update({MakeEpisode(0)}, {}), StatusIs(Code::kAborted));
  EXPECT_EQ(learner->Prepare(absl::UnixEpoch()).value(), 1);
}

TEST(PolicyLearnerTest, RenewsTheLeaseInTimeAndNoticesItsLoss) {
  FakePolicyServer server;
  auto learner = MakeLearner(server);
  absl::Time now = absl::UnixEpoch();
  EXPECT_FALSE(learner->KeepLease(now));
  ASSERT_TRUE(learner->Prepare(now).ok());
  server.training.token = 99;  // Somebody else took it.
  EXPECT_TRUE(learner->KeepLease(now + absl::Seconds(19)));
  EXPECT_FALSE(learner->KeepLease(now + absl::Seconds(21)));
  ASSERT_TRUE(learner->Prepare(now).ok());
  EXPECT_TRUE(learner->KeepLease(now + absl::Seconds(21)));
}

// A whole run in one process: the real coordinator, a fake policy server, and
// a worker that makes up its episodes.
class TrainerTest : public ::testing::Test {
 protected:
  TrainerTest() {
    std::string pattern = ::testing::TempDir() + "/trainer_XXXXXX";
    path_ = mkdtemp(pattern.data());
    Open(/*resume=*/false);
  }
  ~TrainerTest() override { std::filesystem::remove_all(path_); }

  void Open(bool resume) {
    directory_ = RunDirectory::Open(path_, resume, {}).value();
  }

  // Runs a trainer with one worker that delivers what it leases.
  absl::Status Train(Trainer::Options options, bool stop_at_once = false) {
    EpisodeScheduler::Options scheduling;
    scheduling.first_episode = directory_->totals().next_episode;
    EpisodeScheduler scheduler(scheduling);
    EpisodeCollector collector;
    CoordinatorService service(
        {}, scheduler, collector,
        [this](const FinishedEpisode& episode) {
          EXPECT_TRUE(directory_->AddEpisode(episode).ok());
        },
        absl::Now);
    ListenOptions listen;
    Listener listener = Listen(listen, service).value();
    absl::Notification stop;
    if (stop_at_once) stop.Notify();
    std::thread worker([&] { Work(listener.server->InProcessChannel({})); });
    Progress progress(false, absl::InfiniteDuration());
    auto learner = MakeLearner(server_);
    options.update.passes = 2;
    Trainer trainer(options, scheduler, collector, *learner, *directory_,
                    progress, service, stop);
    const absl::Status status = trainer.Run();
    worker.join();
    listener.server->Shutdown();
    return status;
  }

  void Work(std::shared_ptr<grpc::Channel> channel) {
    CoordinatorClient client(channel, FastRetry());
    const std::string id = client.RegisterWorker("w", 4).value().worker_id();
    while (true) {
      auto answer = client.LeaseEpisodes(id, 4);
      ASSERT_TRUE(answer.ok()) << answer.status();
      if (answer->done()) return;
      for (const v1::EpisodeLease& lease : answer->leases()) {
        const FinishedEpisode episode =
            MakeEpisode(0, server_.inference.version);
        v1::ReportEpisodeRequest report;
        report.set_worker_id(id);
        report.set_lease_id(lease.lease_id());
        *report.mutable_summary() = episode.summary;
        if (!lease.evaluation()) {
          *report.mutable_trajectory() = episode.trajectory;
        }
        // Twice: the second one is a duplicate. Late ones are refused.
        for (int i = 0; i < 2; ++i) {
          const absl::Status status = client.ReportEpisode(report);
          EXPECT_TRUE(status.ok() || status.code() == Code::kFailedPrecondition)
              << status;
        }
      }
      if (answer->leases().empty()) absl::SleepFor(absl::Milliseconds(1));
    }
  }

  FakePolicyServer server_;
  std::string path_;
  std::unique_ptr<RunDirectory> directory_;
};

TEST_F(TrainerTest, TrainsRoundByRoundAndResumes) {
  Trainer::Options options;
  options.episodes_per_update = 3;
  options.min_episodes = 3;
  options.max_updates = 4;
  options.checkpoint_every = 2;
  ASSERT_TRUE(Train(options).ok());
  RunTotals totals = directory_->totals();
  EXPECT_EQ(totals.updates, 4);
  EXPECT_EQ(totals.episodes, 12);
  EXPECT_EQ(totals.next_episode, 12);
  EXPECT_EQ(totals.policy_version, 5);
  EXPECT_EQ(totals.publishes, 4);
  EXPECT_EQ(totals.weights_change_l2, 4 * 2 * 0.25);
  EXPECT_TRUE(totals.finished);
  EXPECT_EQ(server_.training.forward_backwards, 8);
  EXPECT_TRUE(server_.training.released);
  EXPECT_THAT(server_.admin.checkpoints,
              ElementsAre(::testing::Pair("v3", 3), ::testing::Pair("v5", 5)));

  // The server was restarted, and nobody restored it.
  server_.inference.version = 1;
  directory_.reset();
  Open(/*resume=*/true);
  ASSERT_TRUE(Train(options).ok());
  totals = directory_->totals();
  EXPECT_EQ(totals.updates, 8);
  EXPECT_EQ(totals.next_episode, 24);
  EXPECT_EQ(totals.policy_version, 9);
  EXPECT_EQ(totals.publishes, 8);
  EXPECT_EQ(totals.restarts, 1);
}

TEST_F(TrainerTest, EvaluatesAfterEveryFewUpdates) {
  Trainer::Options options;
  options.episodes_per_update = 2;
  options.min_episodes = 2;
  options.max_updates = 4;
  options.evaluation_every = 2;
  options.evaluation_episodes = 3;
  ASSERT_TRUE(Train(options).ok());
  EXPECT_EQ(directory_->totals().evaluations, 6);
  EXPECT_EQ(directory_->totals().episodes, 8);
  EXPECT_EQ(directory_->totals().next_episode, 8);
  std::ifstream file(path_ + "/evaluations.csv");
  std::string line;
  std::getline(file, line);
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(std::getline(file, line));
    // Number, episode, seed, version.
    const std::vector<std::string> fields = absl::StrSplit(line, ',');
    EXPECT_EQ(fields[1], absl::StrCat(i % 3));
    EXPECT_EQ(fields[3], i < 3 ? "3" : "5");
  }
  EXPECT_FALSE(std::getline(file, line));
}

TEST_F(TrainerTest, EvaluatesWithoutTraining) {
  Trainer::Options options;
  options.evaluate_only = true;
  options.evaluation_episodes = 3;
  ASSERT_TRUE(Train(options).ok());
  const RunTotals totals = directory_->totals();
  EXPECT_EQ(totals.evaluations, 3);
  EXPECT_EQ(totals.episodes, 0);
  EXPECT_EQ(totals.updates, 0);
  EXPECT_TRUE(totals.finished);
  EXPECT_EQ(server_.training.forward_backwards, 0);
  EXPECT_TRUE(server_.training.released);
  EXPECT_THAT(server_.admin.checkpoints, ::testing::IsEmpty());
}

TEST_F(TrainerTest, SavesAndCompletesTheSummaryWhenItIsStopped) {
  ASSERT_TRUE(Train({}, /*stop_at_once=*/true).ok());
  EXPECT_TRUE(directory_->totals().finished);
  EXPECT_EQ(directory_->totals().updates, 0);
  EXPECT_EQ(server_.admin.checkpoints.size(), 1);
}

TEST_F(TrainerTest, DropsARefusedBatchAndGoesOn) {
  server_.faults.Push(
      "ForwardBackward",
      {Refusal(Code::kFailedPrecondition, "BEHAVIOUR_MISMATCH", "They differ."),
       false});
  Trainer::Options options;
  options.episodes_per_update = 2;
  options.min_episodes = 2;
  options.max_updates = 1;
  ASSERT_TRUE(Train(options).ok());
  EXPECT_EQ(directory_->totals().updates, 1);
  EXPECT_EQ(directory_->totals().updates_failed, 1);
  EXPECT_EQ(directory_->totals().episodes, 4);
}

TEST_F(TrainerTest, UpdatesWithTheSameEpisodesAfterALostLease) {
  server_.faults.Push("ForwardBackward", {Refusal(Code::kAborted, "STALE_LEASE",
                                                  "The server was restarted."),
                                          false});
  Trainer::Options options;
  options.episodes_per_update = 2;
  options.min_episodes = 2;
  options.max_updates = 1;
  ASSERT_TRUE(Train(options).ok());
  EXPECT_EQ(directory_->totals().updates, 1);
  EXPECT_EQ(directory_->totals().updates_failed, 0);
  EXPECT_EQ(directory_->totals().episodes, 2);
}

TEST_F(TrainerTest, EndsAfterThreeRefusalsInARow) {
  for (int i = 0; i < 3; ++i) {
    server_.faults.Push("ForwardBackward",
                        {Refusal(Code::kFailedPrecondition,
                                 "BEHAVIOUR_MISMATCH", "They differ."),
                         false});
  }
  Trainer::Options options;
  options.episodes_per_update = 2;
  options.min_episodes = 2;
  EXPECT_THAT(Train(options), StatusIs(Code::kFailedPrecondition));
  EXPECT_EQ(directory_->totals().updates, 0);
  EXPECT_TRUE(directory_->totals().finished);
}

TEST(ListenTest, RefusesAddressesThatOthersReach) {
  EpisodeScheduler scheduler({});
  EpisodeCollector collector;
  CoordinatorService service(
      {}, scheduler, collector, [](const auto&) {}, absl::Now);
  ListenOptions options;
  options.address = "0.0.0.0:0";
  EXPECT_THAT(Listen(options, service).status(),
              StatusIs(Code::kPermissionDenied));
  options.address = "nonsense";
  EXPECT_THAT(Listen(options, service).status(),
              StatusIs(Code::kInvalidArgument));
  options.address = "127.0.0.1:0";
  Listener first = Listen(options, service).value();
  EXPECT_GT(first.port, 0);
  CoordinatorService another(
      {}, scheduler, collector, [](const auto&) {}, absl::Now);
  options.address = first.address;
  EXPECT_THAT(Listen(options, another).status(), StatusIs(Code::kUnavailable));
  EXPECT_TRUE(IsLocalAddress("localhost:1"));
  EXPECT_TRUE(IsLocalAddress("[::1]:1"));
  EXPECT_FALSE(IsLocalAddress("10.0.0.1:1"));
  EXPECT_FALSE(IsLocalAddress("[::]:1"));
  EXPECT_TRUE(IsLocalAddress("127.1.2.3:1"));
  EXPECT_FALSE(IsLocalAddress("127.example.org:1"));
  EXPECT_FALSE(IsLocalAddress("127.0.0.1.example.org:1"));
  EXPECT_FALSE(IsLocalAddress("127.0:1"));
  EXPECT_TRUE(IsLocalAddress("unix:/tmp/socket"));
}

TEST(ListenTest, ThePortFileNamesThePortOrTheSocket) {
  const std::string path = ::testing::TempDir() + "/port_file";
  Listener listener;
  listener.address = "unix:/tmp/socket";
  std::string text;
  ASSERT_TRUE(WritePortFile(path, listener).ok());
  std::getline(std::ifstream(path), text);
  EXPECT_EQ(text, "unix:/tmp/socket");
  listener.port = 1234;
  ASSERT_TRUE(WritePortFile(path, listener).ok());
  std::getline(std::ifstream(path), text);
  EXPECT_EQ(text, "1234");
}

}  // namespace
}  // namespace esper::client
