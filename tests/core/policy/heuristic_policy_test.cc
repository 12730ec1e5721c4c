#include "core/policy/heuristic_policy.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace esper::policy {
namespace {

using ::esper::testing::Refused;
using Options = HeuristicPolicy::Options;

TrainingSignals Plateau(int64_t epoch, int64_t plateau_epochs = 4) {
  TrainingSignals signals;
  signals.epoch = epoch;
  signals.plateau_epochs = plateau_epochs;
  signals.host_stabilized = true;
  return signals;
}

HeuristicSeed SeedIn(int64_t stage, const std::string& id = "seed") {
  HeuristicSeed seed;
  seed.id = id;
  seed.blueprint_id = "norm";
  seed.stage = stage;
  return seed;
}

HeuristicSeed Holding(std::optional<double> contribution,
                      std::optional<double> total_improvement) {
  HeuristicSeed seed = SeedIn(kStageHolding);
  seed.contribution = contribution;
  seed.total_improvement = total_improvement;
  return seed;
}

std::string ActionFor(const HeuristicSeed& seed, const Options& options = {}) {
  return HeuristicPolicy::Create(options)
      ->Decide(Plateau(20), {seed})
      .ActionName();
}

TEST(HeuristicPolicyTest, GerminatesOnAPlateauOnlyWhenEveryConditionHolds) {
  HeuristicPolicy policy;
  HeuristicDecision decision = policy.Decide(Plateau(5, 3), {});
  EXPECT_EQ(decision.ActionName(), "GERMINATE_CONV_LIGHT");
  EXPECT_EQ(decision.seed_id, "");
  EXPECT_DOUBLE_EQ(decision.confidence, 0.6);
  EXPECT_EQ(policy.germination_count(), 1);

  TrainingSignals unstable = Plateau(20);
  unstable.host_stabilized = false;
  TrainingSignals full = Plateau(20);
  full.available_slots = 0;
  for (const TrainingSignals& signals :
       {unstable, full, Plateau(4), Plateau(20, 2)}) {
    EXPECT_EQ(HeuristicPolicy().Decide(signals, {}).op, Op::kWait);
  }
}

TEST(HeuristicPolicyTest, ConfidenceOfGerminationEndsAtOne) {
  EXPECT_DOUBLE_EQ(HeuristicPolicy().Decide(Plateau(20, 9), {}).confidence, 1);
}

TEST(HeuristicPolicyTest, WaitsOutTheEmbargoAfterAPrune) {
  HeuristicPolicy policy;
  ASSERT_EQ(policy.Decide(Plateau(20), {Holding(0.2, 1.0)}).op, Op::kPrune);
  EXPECT_EQ(policy.last_prune_epoch(), 20);
  EXPECT_EQ(policy.Decide(Plateau(24), {}).op, Op::kWait);
  EXPECT_EQ(policy.Decide(Plateau(25), {}).op, Op::kGerminate);
}

TEST(HeuristicPolicyTest, AdvancesYoungSeedsAndPrunesFailingOnes) {
  EXPECT_EQ(ActionFor(SeedIn(kStageGerminated)), "ADVANCE");
  for (int64_t stage : {kStageTraining, kStageBlending}) {
    HeuristicSeed seed = SeedIn(stage);
    seed.epochs_in_stage = 5;
    seed.improvement = -2.0;  // Not below the limit.
    EXPECT_EQ(ActionFor(seed), stage == kStageTraining ? "ADVANCE" : "WAIT");
    seed.improvement = -2.1;
    EXPECT_EQ(ActionFor(seed), "PRUNE");
    seed.epochs_in_stage = 4;
    EXPECT_NE(ActionFor(seed), "PRUNE");
  }
}

TEST(HeuristicPolicyTest, AdvancesABlendOnlyWhenItIsCompleteAndHeld) {
  HeuristicSeed seed = SeedIn(kStageBlending);
  seed.alpha = 1.0;
  seed.alpha_target = 1.0;
  EXPECT_EQ(ActionFor(seed), "ADVANCE");
  seed.alpha_mode = kAlphaModeUp;
  EXPECT_EQ(ActionFor(seed), "WAIT");
  seed.alpha_mode = kAlphaModeHold;
  seed.alpha = 0.99;
  EXPECT_EQ(ActionFor(seed), "WAIT");
  seed.alpha = seed.alpha_target = 0.7;
  EXPECT_EQ(ActionFor(seed), "WAIT");
}

TEST(HeuristicPolicyTest, JudgesHoldingSeedsByTheirContribution) {
  EXPECT_EQ(ActionFor(Holding({}, 1.0)), "WAIT");
  EXPECT_EQ(ActionFor(Holding(0.6, {})), "FOSSILIZE");
  EXPECT_EQ(ActionFor(Holding(0.5, 1.0)), "PRUNE");
  // Contributes, but the host is worse off than before it came.
  EXPECT_EQ(ActionFor(Holding(0.6, -0.1)), "PRUNE");
  HeuristicPolicy policy;
  EXPECT_DOUBLE_EQ(policy.Decide(Plateau(20), {Holding(2.0, 1.0)}).confidence,
                   0.4);
}

TEST(HeuristicPolicyTest, LeavesFinishedSeedsAloneAndNeverNamesThem) {
  for (int64_t stage :
       {kStageFossilized, kStagePruned, kStageEmbargoed, kStageResetting}) {
    const auto decision =
        HeuristicPolicy().Decide(Plateau(20), {SeedIn(stage)});
    EXPECT_EQ(decision.op, Op::kGerminate) << stage;
  }
  // A dormant seed is live but needs nothing.
  const auto decision =
      HeuristicPolicy().Decide(Plateau(20), {SeedIn(kStageDormant)});
  EXPECT_EQ(decision.op, Op::kWait);
  EXPECT_EQ(decision.seed_id, "");
}

TEST(HeuristicPolicyTest, ManagesTheFirstSeedAloneUnlessToldOtherwise) {
  const std::vector<HeuristicSeed> seeds = {SeedIn(kStageBlending, "waits"),
                                            SeedIn(kStageTraining, "ready")};
  EXPECT_EQ(HeuristicPolicy().Decide(Plateau(20), seeds).seed_id, "waits");
  Options options;
  options.manage = Options::Manage::kAll;
  auto all = HeuristicPolicy::Create(options);
  ASSERT_OK(all);
  const auto decision = all->Decide(Plateau(20), seeds);
  EXPECT_EQ(decision.ActionName(), "ADVANCE");
  EXPECT_EQ(decision.seed_id, "ready");
  EXPECT_EQ(all->Decide(Plateau(21), {seeds[0], seeds[0]}).seed_id, "waits");
}

TEST(HeuristicPolicyTest, PenaltiesDecayOncePerEpochAndAreForgotten) {
  HeuristicPolicy policy;
  policy.Decide(Plateau(20), {Holding(0.0, 1.0)});
  EXPECT_DOUBLE_EQ(policy.penalties().at("norm"), 2.0);
  policy.Decide(Plateau(20), {SeedIn(kStageGerminated)});
  EXPECT_DOUBLE_EQ(policy.penalties().at("norm"), 2.0);
  policy.Decide(Plateau(30), {SeedIn(kStageGerminated)});
  EXPECT_DOUBLE_EQ(policy.penalties().at("norm"), 1.0);
  for (int64_t epoch = 31; epoch <= 34; ++epoch) {
    policy.Decide(Plateau(epoch), {SeedIn(kStageGerminated)});
  }
  EXPECT_TRUE(policy.penalties().empty());
}

TEST(HeuristicPolicyTest, SkipsPenalisedBlueprintsInTurn) {
  Options options;
  options.rotation = std::vector<std::string>{"norm", "attention"};
  options.penalty_decay = 1.0;
  options.embargo_epochs = 0;
  auto policy = HeuristicPolicy::Create(options);
  ASSERT_OK(policy);
  HeuristicSeed bad = Holding(0.0, 1.0);
  policy->Decide(Plateau(20), {bad});
  policy->Decide(Plateau(21), {bad});
  EXPECT_EQ(policy->Decide(Plateau(22), {}).blueprint_id, "attention");
  // All penalised: the least penalised first, from where the turn stands.
  bad.blueprint_id = "attention";
  for (int64_t epoch = 23; epoch < 26; ++epoch) {
    policy->Decide(Plateau(epoch), {bad});
  }
  ASSERT_EQ(policy->rotation_index(), 2);
  EXPECT_EQ(policy->Decide(Plateau(26), {}).blueprint_id, "norm");
  EXPECT_EQ(policy->rotation_index(), 3);
  EXPECT_EQ(policy->Decide(Plateau(27), {}).blueprint_id, "attention");
}

TEST(HeuristicPolicyTest, EveryTopologyHasARotationOfItsOwn) {
  for (const char* topology : {"cnn", "transformer"}) {
    Options options;
    options.topology = topology;
    auto policy = HeuristicPolicy::Create(options);
    ASSERT_OK(policy) << topology;
    const auto actions = HeuristicActions(topology);
    std::set<std::string> germinated;
    for (int64_t epoch = 20; epoch < 30; ++epoch) {
      const auto decision = policy->Decide(Plateau(epoch), {});
      EXPECT_NE(
          std::find(actions.begin(), actions.end(), decision.ActionName()),
          actions.end())
          << decision.ActionName();
      germinated.insert(decision.blueprint_id);
    }
    EXPECT_EQ(germinated.size(), 5u);
  }
}

TEST(HeuristicPolicyTest, RefusesARotationThatTheTopologyCannotGrow) {
  Options options;
  options.topology = "transformer";
  options.rotation = HeuristicPolicy::UpstreamRotation();
  EXPECT_THAT(HeuristicPolicy::Create(options),
              Refused(absl::StatusCode::kInvalidArgument, "MALFORMED_REQUEST"));
  options.rotation = std::vector<std::string>{};
  EXPECT_THAT(HeuristicPolicy::Create(options),
              Refused(absl::StatusCode::kInvalidArgument, "MALFORMED_REQUEST"));
  options.rotation = std::vector<std::string>{"no_such"};
  const auto refused = HeuristicPolicy::Create(options);
  EXPECT_THAT(refused,
              Refused(absl::StatusCode::kInvalidArgument, "MALFORMED_REQUEST"));
  EXPECT_EQ(DetailOf(refused.status())->field, "rotation");
}

TEST(HeuristicPolicyTest, RefusesOptionsOutOfRangeAndNamesThem) {
  const auto field_of = [](const Options& options) {
    const auto policy = HeuristicPolicy::Create(options);
    return policy.ok() ? "" : DetailOf(policy.status())->field;
  };
  Options options;
  options.topology = "CNN";
  EXPECT_EQ(field_of(options), "topology");
  options = {};
  options.embargo_epochs = -1;
  EXPECT_EQ(field_of(options), "embargo_epochs");
  options = {};
  options.penalty_decay = 1.5;
  EXPECT_EQ(field_of(options), "penalty_decay");
  options = {};
  options.prune_penalty = -1;
  EXPECT_EQ(field_of(options), "prune_penalty");
  options = {};
  options.prune_drop = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(field_of(options), "prune_drop");
}

TEST(HeuristicPolicyTest, TheLogIsBounded) {
  Options options;
  options.max_log_entries = 3;
  auto policy = HeuristicPolicy::Create(options);
  ASSERT_OK(policy);
  for (int64_t epoch = 0; epoch < 10; ++epoch) {
    policy->Decide(Plateau(epoch, 0), {});
  }
  ASSERT_EQ(policy->log().size(), 3u);
  EXPECT_EQ(policy->log().front().epoch, 7);
  EXPECT_NE(policy->log().back().decision.reason, "");
}

TEST(HeuristicPolicyTest, ResetRestoresTheFirstState) {
  HeuristicPolicy policy;
  policy.Decide(Plateau(20), {});
  policy.Decide(Plateau(21), {Holding(0.0, 1.0)});
  policy.Reset();
  EXPECT_EQ(policy.rotation_index(), 0);
  EXPECT_EQ(policy.germination_count(), 0);
  EXPECT_EQ(policy.last_prune_epoch(), -100);
  EXPECT_TRUE(policy.penalties().empty());
  EXPECT_TRUE(policy.log().empty());
  EXPECT_EQ(policy.Decide(Plateau(5), {}).blueprint_id, "conv_light");
}

TEST(HeuristicActionsTest, NumbersFollowTheTopology) {
  const std::vector<std::string> transformer = {"WAIT",
                                                "GERMINATE_ATTENTION",
                                                "GERMINATE_NORM",
                                                "GERMINATE_LORA",
                                                "GERMINATE_LORA_LARGE",
                                                "GERMINATE_MLP_SMALL",
                                                "GERMINATE_MLP",
                                                "GERMINATE_FLEX_ATTENTION",
                                                "FOSSILIZE",
                                                "PRUNE",
                                                "ADVANCE"};
  EXPECT_EQ(HeuristicActions("transformer"), transformer);
  EXPECT_EQ(HeuristicActions("cnn")[7], "GERMINATE_CONV_HEAVY");
}

}  // namespace
}  // namespace esper::policy
