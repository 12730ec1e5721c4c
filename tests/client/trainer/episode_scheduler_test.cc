#include "client/trainer/episode_scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "client/status.h"
#include "tests/testing/status_matchers.h"

namespace esper::client {
namespace {

using ::esper::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Code = absl::StatusCode;
using Verdict = EpisodeScheduler::Verdict;

class EpisodeSchedulerTest : public ::testing::Test {
 protected:
  static EpisodeScheduler::Options Options() {
    EpisodeScheduler::Options options;
    options.run_name = "run";
    options.lease = absl::Seconds(10);
    options.max_attempts = 2;
    options.first_incarnation = 5;
    return options;
  }

  std::string Worker(const std::string& name, int environments = 4) {
    return scheduler_.Register(name, environments, now_).value();
  }
  std::vector<Lease> Take(const std::string& worker, int max = 100) {
    return scheduler_.LeaseEpisodes(worker, max, now_).value();
  }
  absl::StatusOr<Verdict> Deliver(const std::string& worker,
                                  const Lease& lease) {
    return scheduler_.Report(worker, lease.id, true, now_);
  }
  static std::vector<uint64_t> Numbers(const std::vector<Lease>& leases) {
    std::vector<uint64_t> numbers;
    for (const Lease& lease : leases) numbers.push_back(lease.episode);
    return numbers;
  }

  absl::Time now_ = absl::UnixEpoch();
  EpisodeScheduler scheduler_{Options()};
};

TEST_F(EpisodeSchedulerTest, HandsOutExactlyOneRound) {
  const std::string worker = Worker("a");
  EXPECT_THAT(Take(worker), IsEmpty());
  scheduler_.StartRound(3);
  const auto leases = Take(worker);
  EXPECT_THAT(Numbers(leases), ElementsAre(0, 1, 2));
  EXPECT_EQ(leases[1].seed, EpisodeSeed(42, 1));
  EXPECT_EQ(leases[1].environment_key, "run/1");
  EXPECT_THAT(Take(worker), IsEmpty());
  for (const Lease& lease : leases) {
    EXPECT_EQ(Deliver(worker, lease).value(), Verdict::kAccepted);
  }
  EXPECT_THAT(Take(worker), IsEmpty());
  scheduler_.EndRound();
  EXPECT_THAT(Take(worker), IsEmpty());
  scheduler_.StartRound(2);
  EXPECT_THAT(Numbers(Take(worker)), ElementsAre(3, 4));
}

TEST_F(EpisodeSchedulerTest, SeedsAreAPureFunctionOfRootAndNumber) {
  std::set<uint64_t> seeds;
  for (uint64_t root = 0; root < 10; ++root) {
    for (uint64_t episode = 0; episode < 100; ++episode) {
      seeds.insert(EpisodeSeed(root, episode));
    }
  }
  EXPECT_EQ(seeds.size(), 1000);
  EXPECT_EQ(EpisodeSeed(42, 7), EpisodeSeed(42, 7));
}

TEST_F(EpisodeSchedulerTest, SharesARoundByEnvironments) {
  const std::string big = Worker("big", 3);
  const std::string small = Worker("small", 1);
  scheduler_.StartRound(8);
  EXPECT_EQ(Take(big).size(), 6);
  EXPECT_THAT(Take(big), IsEmpty());
  const auto leases = Take(small);
  EXPECT_EQ(leases.size(), 2);
  EXPECT_EQ(Take(small, 5).size(), 0);
}

TEST_F(EpisodeSchedulerTest, AFastWorkerTakesWhatOthersLeave) {
  const std::string fast = Worker("fast");
  Worker("idle");
  scheduler_.StartRound(4);
  std::vector<Lease> leases = Take(fast);
  EXPECT_THAT(Numbers(leases), ElementsAre(0, 1));
  for (const Lease& lease : leases) ASSERT_TRUE(Deliver(fast, lease).ok());
  EXPECT_THAT(Numbers(Take(fast)), ElementsAre(2, 3));
}

TEST_F(EpisodeSchedulerTest, ReassignsTheLeasesOfASilentWorker) {
  const std::string silent = Worker("silent");
  const std::string other = Worker("other");
  scheduler_.StartRound(2);
  const auto lost = Take(silent);
  ASSERT_THAT(Numbers(lost), ElementsAre(0));
  const auto mine = Take(other);
  now_ += absl::Seconds(10);
  ASSERT_TRUE(scheduler_.Heartbeat(other, {mine[0].id}, now_).ok());
  EXPECT_THAT(scheduler_.ExpireSilent(now_), IsEmpty());
  now_ += absl::Seconds(1);
  EXPECT_THAT(scheduler_.ExpireSilent(now_), ElementsAre("silent"));
  EXPECT_EQ(scheduler_.live_workers(), 1);
  const auto again = Take(other);
  ASSERT_THAT(Numbers(again), ElementsAre(0));
  EXPECT_EQ(again[0].seed, lost[0].seed);
  EXPECT_EQ(again[0].environment_key, lost[0].environment_key);
  EXPECT_GT(again[0].incarnation, lost[0].incarnation);

  // The silent one comes back too late.
  const auto late = Deliver(silent, lost[0]);
  EXPECT_THAT(late, StatusIs(Code::kFailedPrecondition));
  EXPECT_EQ(ReasonOf(late.status()), "LEASE_REVOKED");
  EXPECT_THAT(scheduler_.Heartbeat(silent, {lost[0].id}, now_).value().revoked,
              ElementsAre(lost[0].id));
  EXPECT_EQ(Deliver(other, again[0]).value(), Verdict::kAccepted);
}

TEST_F(EpisodeSchedulerTest, ADuplicateReportChangesNothing) {
  const std::string worker = Worker("a");
  scheduler_.StartRound(1);
  const Lease lease = Take(worker)[0];
  EXPECT_EQ(Deliver(worker, lease).value(), Verdict::kAccepted);
  EXPECT_EQ(Deliver(worker, lease).value(), Verdict::kDuplicate);
  EXPECT_EQ(scheduler_.open_leases(), 0);
}

TEST_F(EpisodeSchedulerTest, RefusesLeasesAndWorkersItNeverMade) {
  const std::string worker = Worker("a");
  const std::string other = Worker("b");
  scheduler_.StartRound(1);
  const Lease lease = Take(worker)[0];
  EXPECT_THAT(scheduler_.Report(worker, "nonsense", true, now_),
              StatusIs(Code::kNotFound));
  EXPECT_THAT(Deliver(other, lease), StatusIs(Code::kFailedPrecondition));
  const auto stranger = scheduler_.LeaseEpisodes("nobody", 1, now_);
  EXPECT_THAT(stranger, StatusIs(Code::kNotFound));
  EXPECT_EQ(ReasonOf(stranger.status()), "UNKNOWN_WORKER");
  EXPECT_THAT(scheduler_.Register("", 1, now_),
              StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(scheduler_.Register("c", 0, now_),
              StatusIs(Code::kInvalidArgument));
}

TEST_F(EpisodeSchedulerTest, RunsAnAbortedEpisodeAgainUntilItIsHopeless) {
  const std::string worker = Worker("a");
  scheduler_.StartRound(1);
  for (int attempt = 0; attempt < 2; ++attempt) {
    const auto leases = Take(worker);
    ASSERT_THAT(Numbers(leases), ElementsAre(0));
    EXPECT_EQ(scheduler_.Report(worker, leases[0].id, false, now_).value(),
              Verdict::kReturned);
  }
  EXPECT_EQ(scheduler_.failed_episodes(), 1);
  EXPECT_THAT(Numbers(Take(worker)), ElementsAre(1));
}

TEST_F(EpisodeSchedulerTest, LateEpisodesComeFirstInTheNextRound) {
  const std::string worker = Worker("a");
  scheduler_.StartRound(3);
  const auto leases = Take(worker);
  ASSERT_TRUE(Deliver(worker, leases[0]).ok());
  scheduler_.EndRound();
  EXPECT_THAT(scheduler_.Heartbeat(worker, {leases[1].id, leases[2].id}, now_)
                  .value()
                  .revoked,
              ::testing::SizeIs(2));
  EXPECT_THAT(Deliver(worker, leases[1]), StatusIs(Code::kFailedPrecondition));
  // Being late does not count as a failed attempt.
  for (int round = 0; round < 5; ++round) {
    scheduler_.StartRound(3);
    EXPECT_THAT(Numbers(Take(worker)), ElementsAre(1, 2, 3));
    scheduler_.EndRound();
  }
  EXPECT_EQ(scheduler_.failed_episodes(), 0);
}

TEST_F(EpisodeSchedulerTest, EvaluatesTheSameEpisodesEveryTime) {
  const std::string worker = Worker("a");
  scheduler_.StartRound(2);
  EXPECT_THAT(Numbers(Take(worker)), ElementsAre(0, 1));
  scheduler_.EndRound();
  std::vector<Lease> before;
  for (int time = 0; time < 2; ++time) {
    scheduler_.StartEvaluation(2);
    const auto leases = Take(worker);
    ASSERT_THAT(Numbers(leases), ElementsAre(0, 1));
    EXPECT_TRUE(leases[0].evaluation);
    EXPECT_NE(leases[0].seed, EpisodeSeed(42, 0));
    EXPECT_EQ(leases[1].environment_key, "run/evaluation/1");
    EXPECT_EQ(Deliver(worker, leases[0]).value(), Verdict::kAccepted);
    if (time == 1) {
      EXPECT_EQ(leases[1].seed, before[1].seed);
      EXPECT_GT(leases[1].incarnation, before[1].incarnation);
    }
    before = leases;
    scheduler_.EndRound();  // The other one is late, and dropped.
  }
  scheduler_.StartRound(3);
  const auto leases = Take(worker);
  EXPECT_THAT(Numbers(leases), ElementsAre(0, 1, 2));
  EXPECT_FALSE(leases[0].evaluation);
}

TEST_F(EpisodeSchedulerTest, DropsAnEvaluationEpisodeThatIsHopeless) {
  const std::string worker = Worker("a");
  scheduler_.StartEvaluation(1);
  for (int attempt = 0; attempt < 2; ++attempt) {
    const auto leases = Take(worker);
    ASSERT_THAT(Numbers(leases), ElementsAre(0));
    ASSERT_TRUE(scheduler_.Report(worker, leases[0].id, false, now_).ok());
  }
  EXPECT_THAT(Take(worker), IsEmpty());
  EXPECT_EQ(scheduler_.failed_episodes(), 1);
  EXPECT_EQ(scheduler_.next_episode(), 0);
}

TEST_F(EpisodeSchedulerTest, TakesBackALeaseThatTheWorkerNeverHeardOf) {
  const std::string worker = Worker("a");
  scheduler_.StartRound(1);
  ASSERT_THAT(Numbers(Take(worker)), ElementsAre(0));  // The reply was lost.
  ASSERT_TRUE(scheduler_.Heartbeat(worker, {}, now_).ok());
  EXPECT_THAT(Take(worker), IsEmpty());  // It may still be on its way.
  now_ += absl::Seconds(6);
  ASSERT_TRUE(scheduler_.Heartbeat(worker, {}, now_).ok());
  EXPECT_THAT(Numbers(Take(worker)), ElementsAre(0));
}

TEST_F(EpisodeSchedulerTest, ARestartedWorkerLosesItsOldLeases) {
  scheduler_.StartRound(1);
  const std::string before = Worker("a");
  const Lease lease = Take(before)[0];
  const std::string after = Worker("a");
  EXPECT_NE(before, after);
  EXPECT_THAT(Numbers(Take(after)), ElementsAre(0));
  EXPECT_THAT(Deliver(before, lease), StatusIs(Code::kFailedPrecondition));
}

TEST_F(EpisodeSchedulerTest, TellsEveryWorkerToStop) {
  const std::string a = Worker("a");
  const std::string b = Worker("b");
  scheduler_.StartRound(2);
  scheduler_.Stop();
  EXPECT_THAT(Take(a), IsEmpty());
  EXPECT_FALSE(scheduler_.AllToldToStop());
  EXPECT_TRUE(scheduler_.Heartbeat(b, {}, now_).value().stop);
  EXPECT_TRUE(scheduler_.AllToldToStop());
}

TEST_F(EpisodeSchedulerTest, EveryRoundEndsWithEachEpisodeDeliveredOnce) {
  // Workers that drop, repeat and return at random, against the invariant.
  std::mt19937 random(77);
  std::vector<std::string> workers;
  for (int i = 0; i < 3; ++i)
    workers.push_back(Worker(std::string(1, 'a' + i)));
  std::set<uint64_t> delivered;
  for (int round = 0; round < 20; ++round) {
    const int size = 1 + random() % 9;
    scheduler_.StartRound(size);
    int accepted = 0;
    for (int turn = 0; accepted < size; ++turn) {
      ASSERT_LT(turn, 10000);
      now_ += absl::Milliseconds(random() % 3000);
      scheduler_.ExpireSilent(now_);
      const std::string& worker = workers[random() % workers.size()];
      for (const Lease& lease : Take(worker, 1 + random() % 3)) {
        if (random() % 4 == 0) continue;  // Forgets it.
        const bool deliver = random() % 4 != 0;
        const auto verdict = scheduler_.Report(worker, lease.id, deliver, now_);
        ASSERT_TRUE(verdict.ok());
        if (*verdict != Verdict::kAccepted) continue;
        ++accepted;
        EXPECT_TRUE(delivered.insert(lease.episode).second);
        EXPECT_EQ(Deliver(worker, lease).value(), Verdict::kDuplicate);
      }
      ASSERT_TRUE(scheduler_.Heartbeat(worker, {}, now_).ok());
    }
    scheduler_.EndRound();
    EXPECT_EQ(scheduler_.open_leases(), 0);
  }
}

}  // namespace
}  // namespace esper::client
