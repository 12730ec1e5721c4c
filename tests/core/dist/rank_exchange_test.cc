#include "core/slot/rank_exchange.h"

#include <ATen/core/Tensor.h>
#include <signal.h>

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "core/error.h"
#include "core/slot/force_alpha.h"
#include "core/slot/slot_lifecycle.h"
#include "gtest/gtest.h"
#include "tests/core/dist/ranks.h"
#include "tests/core/slot/test_seeds.h"
#include "tests/testing/status_matchers.h"

// Each rank is a process with a slot of its own. The test process itself runs
// no tensor code, so that every fork starts without threads.
namespace esper::slot {
namespace {

using ::esper::testing::GrowTo;
using ::esper::testing::HealthyReading;
using ::esper::testing::MakeLifecycle;
using ::esper::testing::MakeSlot;
using ::esper::testing::RankResult;
using ::esper::testing::RunRanks;
using ::esper::testing::StatusIs;
using S = SeedStage;

constexpr absl::Duration kTimeout = absl::Seconds(3);
constexpr absl::Duration kLimit = absl::Seconds(10);

// One rank: a slot and its lifecycle over the group.
struct Rank {
  explicit Rank(dist::Communicator& group, SlotLifecycle::Options options = {})
      : rank(group.rank()), exchange(&group), lifecycle([&] {
          options.synchronizer = &exchange;
          return MakeLifecycle(options);
        }()) {}

  // What a call came to, and where the slot is then.
  std::string Say(const LifecycleResult& result) const {
    std::string reason;
    if (const auto detail = DetailOf(result.status())) reason = detail->reason;
    return absl::StrCat(absl::StatusCodeToString(result.status().code()), " ",
                        reason, " ", StageName(slot->stage()));
  }

  const int rank;
  RankExchange exchange;
  const SlotLifecycle lifecycle;
  const std::shared_ptr<SeedSlot> slot = MakeSlot();
};

GerminateRequest Norm() {
  GerminateRequest request;
  request.blueprint_id = "norm";
  return request;
}

void ExpectAll(const std::vector<RankResult>& results,
               const std::string& expected) {
  for (size_t rank = 0; rank < results.size(); ++rank) {
    EXPECT_EQ(results[rank].exit_status, 0) << rank;
    EXPECT_EQ(results[rank].said, expected) << rank;
    EXPECT_LT(results[rank].took, kLimit) << rank;
  }
}

TEST(RankExchangeTest, RanksLiveThroughAWholeLifeTogether) {
  const auto results = RunRanks(2, kTimeout, [](dist::Communicator& group) {
    Rank r(group);
    std::vector<std::string> said;
    GrowTo(r.lifecycle, *r.slot, S::kHolding);
    AlphaTargetRequest to;
    to.target = 0.5;
    to.algorithm = AlphaAlgorithm::kGate;
    said.push_back(r.Say(r.lifecycle.SetAlphaTarget(*r.slot, to)));
    said.push_back(r.Say(r.lifecycle.SetAlpha(*r.slot, 0.25)));
    PruneRequest prune;
    prune.steps = 2;
    said.push_back(r.Say(r.lifecycle.SchedulePrune(*r.slot, prune)));
    while (!r.slot->empty()) {
      if (!r.lifecycle.Tick(*r.slot).ok()) return std::string("tick");
    }
    GrowTo(r.lifecycle, *r.slot, S::kFossilized);
    said.push_back(r.Say(r.lifecycle.Prune(*r.slot, "test")));
    // The same initial parameters on every rank.
    const auto first = r.slot->SeedParameters()[0];
    said.push_back(absl::StrCat(first.flatten()[0].item<double>()));
    return absl::StrJoin(said, "; ");
  });
  EXPECT_EQ(results[0].said, results[1].said);
  const std::vector<std::string> said = absl::StrSplit(results[0].said, "; ");
  ASSERT_EQ(said.size(), 5);
  EXPECT_EQ(said[0], "OK  BLENDING");
  EXPECT_EQ(said[1], "OK  BLENDING");
  EXPECT_EQ(said[2], "OK  BLENDING");
  EXPECT_EQ(said[3], "FAILED_PRECONDITION FOSSILIZED FOSSILIZED");
}

TEST(RankExchangeTest, RankZerosVerdictHoldsAndOthersNoteTheirs) {
  for (const bool zero_passes : {true, false}) {
    const auto results = RunRanks(2, kTimeout, [=](dist::Communicator& group) {
      Rank r(group);
      GrowTo(r.lifecycle, *r.slot, S::kTraining);
      for (int i = 0; i < 10; ++i) r.slot->RecordAccuracy(50).IgnoreError();
      if ((r.rank == 0) == zero_passes) {
        r.slot->RecordGradients(HealthyReading()).IgnoreError();
      }
      const LifecycleResult result = r.lifecycle.Advance(*r.slot);
      return absl::StrCat(r.Say(result), " | ", result.gate()->passed, " ",
                          result.gate()->score, " ",
                          absl::StrJoin(result.gate()->checks_passed, ","), " ",
                          absl::StrJoin(result.gate()->checks_failed, ","),
                          " | ", result.gate()->message);
    });
    const std::string stage = zero_passes
                                  ? "OK  BLENDING"
                                  : "FAILED_PRECONDITION GATE_FAILED TRAINING";
    const auto& zero = results[0].said;
    const auto& one = results[1].said;
    EXPECT_EQ(zero.substr(0, stage.size()), stage);
    const std::string note = zero_passes ? " [Rank 0: passed; rank 1: failed.]"
                                         : " [Rank 0: failed; rank 1: passed.]";
    EXPECT_EQ(one, zero + note);
  }
}

TEST(RankExchangeTest, SameRefusalOnAllRanksIsARefusal) {
  ExpectAll(RunRanks(2, kTimeout,
                     [](dist::Communicator& group) {
                       Rank r(group);
                       return r.Say(r.lifecycle.Advance(*r.slot));
                     }),
            "FAILED_PRECONDITION NO_SEED DORMANT");
}

TEST(RankExchangeTest, SameErrorOnAllRanksStaysAsItIs) {
  ExpectAll(
      RunRanks(
          2, kTimeout,
          [](dist::Communicator& group) {
            Rank r(group);
            GrowTo(r.lifecycle, *r.slot, S::kGerminated);
            return r.lifecycle.Advance(*r.slot, S::kPruned).status().ToString();
          }),
      "INVALID_ARGUMENT: Advancing to PRUNED is not possible; prune.");
}

// Two ranks that make different calls, or the same on different state, fail
// alike, and the slot is as it was.
std::vector<RankResult> RunDiffering(
    const std::function<LifecycleResult(Rank& r)>& call) {
  return RunRanks(2, kTimeout, [&](dist::Communicator& group) {
    Rank r(group);
    GrowTo(r.lifecycle, *r.slot, S::kTraining);
    const auto plan = r.slot->plan();
    const LifecycleResult result = call(r);
    if (r.slot->plan() != plan) return std::string("The slot changed.");
    // The group is whole: the next decision can be taken.
    PruneRequest prune;
    if (!r.lifecycle.SchedulePrune(*r.slot, prune).ok()) {
      return std::string("The group is broken.");
    }
    return absl::StrCat(r.Say(result), " ", result.status().message());
  });
}

void ExpectDisagreement(const std::vector<RankResult>& results,
                        const std::vector<std::string>& words) {
  ExpectAll(results, results[0].said);
  for (const std::string& word : words) {
    EXPECT_NE(results[0].said.find(word), std::string::npos)
        << word << " in " << results[0].said;
  }
}

TEST(RankExchangeTest, AsymmetricCallsFailAlike) {
  ExpectDisagreement(
      RunDiffering([](Rank& r) {
        return r.rank == 0 ? r.lifecycle.Prune(*r.slot, "x")
                           : r.lifecycle.Tick(*r.slot);
      }),
      {"RANKS_DISAGREE", "rank 0 Prune r0c0 #2 of seed 1", "rank 1 Tick r0c0"});
}

TEST(RankExchangeTest, DifferentRequestsFailAlike) {
  ExpectDisagreement(RunDiffering([](Rank& r) {
                       return r.lifecycle.SetAlpha(*r.slot, 0.5 + 0.1 * r.rank);
                     }),
                     {"RANKS_DISAGREE", "configuration"});
}

TEST(RankExchangeTest, AnErrorOfOneRankIsEverybodys) {
  ExpectDisagreement(RunDiffering([](Rank& r) {
                       return r.lifecycle.Advance(
                           *r.slot, r.rank == 1
                                        ? std::optional<S>(S::kEmbargoed)
                                        : std::nullopt);
                     }),
                     {"INVALID_ARGUMENT", "Rank 1: Advancing to EMBARGOED"});
}

TEST(RankExchangeTest, DifferentStagesFailAlike) {
  const auto results = RunRanks(2, kTimeout, [](dist::Communicator& group) {
    Rank r(group);
    // As after a restore of different checkpoints.
    const SlotLifecycle alone = MakeLifecycle();
    GrowTo(alone, *r.slot, S::kGerminated);
    // The same number of decisions on both.
    const LifecycleResult differs =
        r.rank == 1 ? alone.Advance(*r.slot) : alone.SetAlpha(*r.slot, 0);
    if (!differs.ok()) return std::string("setup");
    const S before = r.slot->stage();
    const LifecycleResult result = r.lifecycle.Advance(*r.slot);
    if (r.slot->stage() != before) return std::string("The slot changed.");
    return absl::StrCat(DetailOf(result.status())->reason, " ",
                        result.status().message());
  });
  ExpectDisagreement(results, {"RANKS_DISAGREE", "GERMINATED to TRAINING",
                               "TRAINING to BLENDING"});
}

TEST(RankExchangeTest, DifferentPoliciesFailAlike) {
  const auto results = RunRanks(2, kTimeout, [](dist::Communicator& group) {
    SlotLifecycle::Options options;
    options.auto_forward.g1 = group.rank() == 1;
    Rank r(group, options);
    return r.Say(r.lifecycle.Germinate(*r.slot, Norm()));
  });
  ExpectAll(results, "FAILED_PRECONDITION RANKS_DISAGREE DORMANT");
}

TEST(RankExchangeTest, AThrowingRankFailsAll) {
  const auto results = RunRanks(2, kTimeout, [](dist::Communicator& group) {
    SlotLifecycle::Options options;
    if (group.rank() == 1) {
      options.clock = []() -> absl::Time {
        throw std::runtime_error("the clock broke");
      };
    }
    Rank r(group, options);
    const LifecycleResult result = r.lifecycle.Germinate(*r.slot, Norm());
    return absl::StrCat(r.Say(result), " ", result.status().message());
  });
  ExpectAll(results, "INTERNAL  DORMANT Rank 1: the clock broke");
}

TEST(RankExchangeTest, ARankThatNeverCallsIsMissedInTime) {
  const auto results = RunRanks(2, kTimeout, [](dist::Communicator& group) {
    Rank r(group);
    GrowTo(r.lifecycle, *r.slot, S::kGerminated);
    if (r.rank == 1) absl::SleepFor(kTimeout);
    return r.lifecycle.Advance(*r.slot).status().ToString();
  });
  ExpectAll(results,
            "DEADLINE_EXCEEDED: Waited in vain for rank 1 of the group.");
}

// Forced alpha is a view of one thread of one rank; decisions see the true one.
TEST(RankExchangeTest, AForcedAlphaOnOneRankDisturbsNoDecision) {
  const auto results = RunRanks(2, kTimeout, [](dist::Communicator& group) {
    Rank r(group);
    GrowTo(r.lifecycle, *r.slot, S::kBlending);
    while (r.slot->Report()->telemetry.time_to_target > 0) {
      if (!r.lifecycle.Tick(*r.slot).ok()) return std::string("tick");
    }
    r.slot->eval();
    std::optional<ScopedForceAlpha> scope;
    if (r.rank == 1) {
      auto opened = ForceAlpha(*r.slot, 0);
      if (!opened.ok()) return opened.status().ToString();
      scope.emplace(*std::move(opened));
    }
    const LifecycleResult result = r.lifecycle.Advance(*r.slot);
    return absl::StrCat(r.Say(result), " ", result.gate()->score, " ",
                        result.gate()->message, " ", r.slot->alpha());
  });
  ASSERT_EQ(results[0].said.rfind("OK  HOLDING 1 ", 0), 0) << results[0].said;
  ExpectAll(results, results[0].said);
}

TEST(RankExchangeTest, ALostRankFailsTheOthersAtOnce) {
  const auto results = RunRanks(3, kTimeout, [](dist::Communicator& group) {
    Rank r(group);
    GrowTo(r.lifecycle, *r.slot, S::kGerminated);
    if (r.rank == 2) raise(SIGKILL);
    const LifecycleResult result = r.lifecycle.Advance(*r.slot);
    return absl::StrCat(r.Say(result), " ", result.status().message());
  });
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_EQ(results[rank].said,
              "UNAVAILABLE  GERMINATED Rank 2 is gone: it closed its "
              "connection.");
    EXPECT_LT(results[rank].took, kTimeout);
  }
}

TEST(RankExchangeTest, FingerprintsHaveTheirSizeAndDifferInEveryField) {
  DecisionKey key;
  key.slot_id = "r2147483647c2147483647";
  const LocalOutcome fine;
  std::set<std::string> seen = {Fingerprint(key, fine)};
  EXPECT_EQ(seen.begin()->size(), kFingerprintBytes);
  const auto add = [&](const DecisionKey& k, const LocalOutcome& local) {
    EXPECT_TRUE(seen.insert(Fingerprint(k, local)).second);
  };
  const auto with = [&](auto change) {
    DecisionKey copy = key;
    change(copy);
    add(copy, fine);
  };
  with([](DecisionKey& k) { k.slot_id = "r2147483647c2147483646"; });
  with([](DecisionKey& k) { k.decision = Decision::kPrune; });
  with([](DecisionKey& k) { k.sequence = uint64_t{1} << 63; });
  with([](DecisionKey& k) { k.from = S::kHolding; });
  with([](DecisionKey& k) { k.target = S::kHolding; });
  with([](DecisionKey& k) { k.generation = uint64_t{1} << 63; });
  with([](DecisionKey& k) { k.config_hash = uint64_t{1} << 63; });
  LocalOutcome outcome;
  outcome.verdict = GateResult();
  add(key, outcome);
  outcome = {absl::InternalError("x"), Refusal::kNone, std::nullopt};
  add(key, outcome);
  outcome = {absl::FailedPreconditionError("x"), Refusal::kNoSeed,
             std::nullopt};
  add(key, outcome);
}

TEST(RankExchangeTest, VerdictsSurviveAndTruncationIsNoticed) {
  GateResult verdict;
  verdict.level = GateLevel::kG5;
  verdict.passed = true;
  verdict.score = 1.0 / 3;
  verdict.checks_passed = {"a", ""};
  verdict.checks_failed = {"b"};
  verdict.message = "m";
  const std::string bytes = EncodeVerdict(verdict);
  const GateResult back = DecodeVerdict(bytes).value();
  EXPECT_EQ(back.level, verdict.level);
  EXPECT_EQ(back.passed, verdict.passed);
  EXPECT_EQ(back.score, verdict.score);
  EXPECT_EQ(back.checks_passed, verdict.checks_passed);
  EXPECT_EQ(back.checks_failed, verdict.checks_failed);
  EXPECT_EQ(back.message, verdict.message);
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_THAT(DecodeVerdict(bytes.substr(0, length)),
                StatusIs(absl::StatusCode::kDataLoss));
  }
  for (const char* head : {"\x04\x01", "\x06\x01", "\x02\x02"}) {
    EXPECT_THAT(DecodeVerdict(std::string(head) + bytes.substr(2)),
                StatusIs(absl::StatusCode::kDataLoss));
  }
}

}  // namespace
}  // namespace esper::slot
