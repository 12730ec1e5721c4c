#include "core/env/reward.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/env/loss_reward.h"
#include "core/env/reward_terms.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/testing/status_matchers.h"

namespace esper::env {
namespace {

using ::esper::testing::Refused;
using policy::Op;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
constexpr double kTolerance = 1e-12;

const RewardMode kModes[] = {RewardMode::kShaped,    RewardMode::kEscrow,
                             RewardMode::kBasic,     RewardMode::kBasicPlus,
                             RewardMode::kSparse,    RewardMode::kMinimal,
                             RewardMode::kSimplified};

SeedInfo Seed(int64_t stage, int64_t epochs, int64_t previous_stage,
              int64_t previous_epochs, int64_t age) {
  SeedInfo seed;
  seed.stage = stage;
  seed.epochs_in_stage = epochs;
  seed.previous_stage = previous_stage;
  seed.previous_epochs_in_stage = previous_epochs;
  seed.age_epochs = age;
  return seed;
}

// Random but plausible inputs with several live seeds, all present.
RewardInputs RandomInputs(std::mt19937* random) {
  const auto uniform = [random](double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(*random);
  };
  const int64_t stages[] = {2, 3, 4, 6, 7};
  RewardInputs inputs;
  inputs.op = static_cast<Op>((*random)() % policy::kNumOps);
  inputs.max_epochs = 50;
  inputs.epoch = 1 + static_cast<int64_t>((*random)() % 50);
  inputs.val_acc = uniform(20, 90);
  inputs.acc_delta = uniform(-3, 3);
  inputs.acc_since_start = uniform(-5, 60);
  inputs.stable_val_acc = uniform(20, 90);
  inputs.committed_val_acc = uniform(20, 90);
  inputs.counterfactual_improvement = uniform(-3, 5);
  inputs.host_params = 6000;
  inputs.total_params = 9000;
  inputs.effective_seed_params = uniform(0, 3000);
  inputs.alpha_delta_sq_sum = uniform(0, 2);
  inputs.n_active = static_cast<int64_t>((*random)() % 4);
  inputs.n_fossilized = static_cast<int64_t>((*random)() % 3);
  inputs.n_contributing = inputs.n_fossilized;
  inputs.fossilized_params = 1500;
  for (int i = 0; i < 4; ++i) {
    SlotRewardInputs slot;
    slot.slot_id = absl::StrCat("r0c", i);
    slot.seed_id = absl::StrCat("seed", i);
    if ((*random)() % 4 != 0) {
      slot.seed = Seed(stages[(*random)() % 5], (*random)() % 9, 2,
                       (*random)() % 9, (*random)() % 30);
      slot.seed->interaction_sum = uniform(-2, 4);
      slot.seed->improvement_since_stage_start = uniform(-2, 4);
      if ((*random)() % 4 != 0) slot.contribution = uniform(-4, 8);
      if ((*random)() % 4 != 0) slot.acc_at_germination = uniform(20, 60);
    }
    slot.escrow_credit = uniform(0, 3);
    inputs.slots.push_back(slot);
  }
  inputs.target = static_cast<int64_t>((*random)() % 4);
  inputs.drips = {{"seed0", "r0c0", 3, 50, 0.8, 0.05, 0.1}};
  inputs.drip_contributions = {{"seed0", uniform(-4, 8)}};
  return inputs;
}

// One seed in HOLDING with a measured contribution, nothing else going on.
RewardInputs Holding(double contribution, double improvement) {
  RewardInputs inputs;
  inputs.epoch = 30;
  inputs.max_epochs = 50;
  inputs.val_acc = 60;
  inputs.counterfactual_improvement = improvement;
  SlotRewardInputs slot;
  slot.slot_id = "r0c0";
  slot.seed = Seed(policy::kStageHolding, 1, policy::kStageBlending, 5, 15);
  slot.contribution = contribution;
  slot.acc_at_germination = 50.0;
  inputs.slots = {slot};
  return inputs;
}

TEST(RewardBreakdownTest, PartsSumToTheTotalInEveryFamily) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  for (int trial = 0; trial < 300; ++trial) {
    const RewardInputs inputs = RandomInputs(&random);
    for (RewardMode mode : kModes) {
      for (const RewardConfig& config :
           {RewardConfig::Default(mode), RewardConfig::Upstream(mode)}) {
        auto reward = ComputeReward(config, inputs);
        ASSERT_OK(reward);
        PendingReward pending{-0.2, 0.1};
        AddFinalTerms(config, inputs.epoch == inputs.max_epochs,
                      {{"r0c0", 3, 7, 1.5}}, &pending, &*reward);
        const RewardBreakdown& r = *reward;
        // Spelled out: a part left out of Parts() would not be noticed there.
        const double sum =
            r.attribution + r.blending_warning + r.holding_warning + r.pbrs +
            r.synergy + r.rent + r.alpha_shock + r.occupancy_rent +
            r.fossilized_rent + r.op_shaping + r.fossilize + r.drip +
            r.terminal + r.loss + r.escrow_forfeit + r.pbrs_clawback +
            r.auto_prune + r.hindsight + r.governor;
        EXPECT_NEAR(r.total(), sum, kTolerance);
        EXPECT_TRUE(std::isfinite(sum));
      }
    }
  }
  std::set<std::string> names;
  for (const auto& [name, value] : RewardBreakdown().Parts())
    names.insert(name);
  EXPECT_EQ(names.size(), RewardBreakdown().Parts().size());
}

// Discounted shaping over a seed's life is what its end is worth minus what its
// beginning was, whatever the path.
TEST(PotentialShapingTest, TelescopesOverAnyPathOfStages) {
  const RewardConfig config;
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  for (int trial = 0; trial < 100; ++trial) {
    SeedInfo info =
        Seed(policy::kStageGerminated, 0, policy::kStageDormant, 0, 0);
    double discounted = 0;
    double discount = 1;
    const int64_t successors[] = {0, 0, 3, 4, 6, 0, 7};
    for (int step = 0; step < 40; ++step) {
      discounted += discount * PotentialShaping(config, info);
      discount *= config.gamma;
      if (step == 39) break;
      if (random() % 4 == 0 && info.stage != policy::kStageFossilized) {
        info.previous_stage = info.stage;
        info.previous_epochs_in_stage = info.epochs_in_stage;
        info.stage = successors[info.stage];
        info.epochs_in_stage = 0;
      } else {
        ++info.epochs_in_stage;
      }
    }
    const double end =
        discount * SeedPotential(config, info.stage, info.epochs_in_stage);
    EXPECT_NEAR(discounted, config.pbrs_weight * end, 1e-9);
  }
}

TEST(ComputeRewardTest, WaitDoesNotDependOnTheOrderOfSlots) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  for (int trial = 0; trial < 200; ++trial) {
    RewardInputs inputs = RandomInputs(&random);
    inputs.op = Op::kWait;
    for (RewardMode mode : kModes) {
      RewardInputs permuted = inputs;
      const auto before = ComputeReward(RewardConfig::Default(mode), inputs);
      std::shuffle(permuted.slots.begin(), permuted.slots.end(), random);
      permuted.target = static_cast<int64_t>(random() % 4);
      const auto after = ComputeReward(RewardConfig::Default(mode), permuted);
      ASSERT_OK(before);
      ASSERT_OK(after);
      EXPECT_NEAR(before->total(), after->total(), 1e-9)
          << RewardModeName(mode);
    }
  }
}

TEST(ComputeRewardTest, UpstreamSeesTheSampledSlotOnly) {
  RewardInputs inputs = Holding(4.0, 4.0);
  inputs.slots.push_back(inputs.slots[0]);
  inputs.slots[1].slot_id = "r0c1";
  inputs.slots[1].contribution = -3.0;
  const RewardConfig upstream = RewardConfig::Upstream();
  const double first = ComputeReward(upstream, inputs)->attribution;
  inputs.target = 1;
  EXPECT_DOUBLE_EQ(ComputeReward(upstream, inputs)->attribution, -3.0);
  EXPECT_NEAR(ComputeReward(RewardConfig(), inputs)->attribution, first - 3.0,
              kTolerance);
}

TEST(ComputeRewardTest, CapsWhatPruningAHarmfulSeedPays) {
  RewardInputs inputs = Holding(-20.0, -20.0);
  inputs.op = Op::kPrune;
  EXPECT_DOUBLE_EQ(ComputeReward(RewardConfig(), inputs)->attribution, 0.3);
  EXPECT_DOUBLE_EQ(ComputeReward(RewardConfig::Upstream(), inputs)->attribution,
                   20.0);
  // A useful seed is still lost in full.
  inputs = Holding(4.0, 4.0);
  const double kept = ComputeReward(RewardConfig(), inputs)->attribution;
  inputs.op = Op::kPrune;
  EXPECT_DOUBLE_EQ(ComputeReward(RewardConfig(), inputs)->attribution, -kept);
}

TEST(ComputeRewardTest, NeverPaysARefusedFossilize) {
  RewardInputs inputs = Holding(4.0, 4.0);
  inputs.slots[0].seed->epochs_in_stage = 5;
  inputs.op = Op::kFossilize;
  EXPECT_GT(ComputeReward(RewardConfig(), inputs)->op_shaping, 1.0);
  // The handler refused it: what took effect is WAIT.
  inputs.op = Op::kWait;
  EXPECT_DOUBLE_EQ(ComputeReward(RewardConfig(), inputs)->op_shaping, 0.0);
}

TEST(ComputeRewardTest, RefusesWhatAFamilyNeedsAndDoesNotHave) {
  RewardInputs inputs = Holding(2.0, 1.0);
  inputs.epoch = inputs.max_epochs;
  const auto refused = [&inputs](RewardMode mode) {
    return ComputeReward(RewardConfig::Default(mode), inputs);
  };
  EXPECT_THAT(refused(RewardMode::kEscrow),
              Refused(kInvalid, "MALFORMED_REQUEST"));
  EXPECT_THAT(refused(RewardMode::kSparse),
              Refused(kInvalid, "MALFORMED_REQUEST"));
  EXPECT_THAT(refused(RewardMode::kBasic),
              Refused(kInvalid, "MALFORMED_REQUEST"));
  inputs.drips = {{"seed9", "r0c0", 3, 50, 0.8, 0.05, 0.1}};
  inputs.acc_since_start = 1.0;
  EXPECT_THAT(refused(RewardMode::kBasicPlus),
              Refused(kInvalid, "MALFORMED_REQUEST"));
  inputs.counterfactual_improvement = std::nullopt;
  EXPECT_THAT(refused(RewardMode::kShaped),
              Refused(kInvalid, "MALFORMED_REQUEST"));
}

TEST(ComputeRewardTest, RefusesNumbersThatAreNotFiniteAndBadTargets) {
  RewardInputs inputs = Holding(2.0, 1.0);
  inputs.val_acc = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(ComputeReward(RewardConfig(), inputs),
              Refused(kInvalid, "NONFINITE_INPUT"));
  inputs = Holding(std::numeric_limits<double>::infinity(), 1.0);
  const auto reward = ComputeReward(RewardConfig(), inputs);
  ASSERT_THAT(reward, Refused(kInvalid, "NONFINITE_INPUT"));
  EXPECT_EQ(DetailOf(reward.status())->tensor, "r0c0.contribution");
  inputs = Holding(2.0, 1.0);
  inputs.target = 1;
  EXPECT_THAT(ComputeReward(RewardConfig(), inputs),
              Refused(kInvalid, "INVALID_ACTION"));
}

TEST(BasicRewardTest, PaysTheGainSinceTheStartNotTheLastStep) {
  RewardInputs inputs = Holding(2.0, 1.0);
  inputs.epoch = inputs.max_epochs;
  inputs.acc_delta = -1.0;
  inputs.acc_since_start = 40.0;
  EXPECT_DOUBLE_EQ(
      ComputeReward(RewardConfig::Default(RewardMode::kBasic), inputs)
          ->terminal,
      2.0);
  EXPECT_DOUBLE_EQ(
      ComputeReward(RewardConfig::Upstream(RewardMode::kBasic), inputs)
          ->terminal,
      -0.05);
}

TEST(BasicRewardTest, DripPaysOutWhatTheFossilizeBonusHeldBack) {
  RewardInputs inputs = Holding(2.0, 3.0);
  inputs.slots[0].seed_id = "seed0";
  inputs.slots[0].seed->epochs_in_stage = 5;
  inputs.op = Op::kFossilize;
  const auto whole =
      ComputeReward(RewardConfig::Default(RewardMode::kBasic), inputs);
  const auto part =
      ComputeReward(RewardConfig::Default(RewardMode::kBasicPlus), inputs);
  ASSERT_TRUE(part->new_drip.has_value());
  EXPECT_NEAR(part->fossilize + part->new_drip->total, whole->fossilize,
              kTolerance);
}

TEST(LossRewardTest, AFallOfTheLossPaysAndARiseCostsHalf) {
  RewardInputs inputs;
  inputs.epoch = 3;
  inputs.max_epochs = 50;
  inputs.val_loss = 1.0;
  inputs.loss_delta = -0.05;  // New - old: the loss fell.
  const LossRewardConfig config;
  EXPECT_NEAR(ComputeLossReward(config, inputs)->total(), 2.5, kTolerance);
  inputs.loss_delta = 0.05;
  EXPECT_NEAR(ComputeLossReward(config, inputs)->total(), -1.25, kTolerance);
  inputs.loss_delta = std::nullopt;
  EXPECT_DOUBLE_EQ(ComputeLossReward(config, inputs)->total(), 0.0);
  inputs.loss_delta = -std::numeric_limits<double>::infinity();
  EXPECT_THAT(ComputeLossReward(config, inputs),
              Refused(kInvalid, "NONFINITE_INPUT"));
}

TEST(AddFinalTermsTest, TakesBackWhatWasNeverEarned) {
  const std::vector<FinalSlot> slots = {
      {"r0c0", policy::kStageTraining, 10, 1.5},
      {"r0c1", policy::kStageFossilized, 20, 2.0},
      {"r0c2", policy::kStagePruned, 20, 4.0}};
  PendingReward pending;
  RewardBreakdown escrow;
  AddFinalTerms(RewardConfig::Default(RewardMode::kEscrow), true, slots,
                &pending, &escrow);
  EXPECT_DOUBLE_EQ(escrow.escrow_forfeit, -1.5);
  const double clawback = -0.3 * 0.995 / std::pow(0.995, 10);
  EXPECT_NEAR(escrow.pbrs_clawback, clawback, kTolerance);

  RewardBreakdown shaped;
  AddFinalTerms(RewardConfig(), true, slots, &pending, &shaped);
  EXPECT_DOUBLE_EQ(shaped.escrow_forfeit, 0);
  EXPECT_NEAR(shaped.pbrs_clawback, clawback, kTolerance);

  RewardBreakdown early;
  AddFinalTerms(RewardConfig(), false, slots, &pending, &early);
  EXPECT_DOUBLE_EQ(early.total(), 0);
}

TEST(AddFinalTermsTest, PaysWhatIsPendingOnce) {
  PendingReward pending{-0.4, 0.15};
  RewardBreakdown first;
  AddFinalTerms(RewardConfig(), false, {}, &pending, &first);
  EXPECT_DOUBLE_EQ(first.auto_prune, -0.4);
  EXPECT_DOUBLE_EQ(first.hindsight, 0.15);
  RewardBreakdown second;
  AddFinalTerms(RewardConfig(), false, {}, &pending, &second);
  EXPECT_DOUBLE_EQ(second.total(), 0);
}

TEST(FlushPendingTest, PaysTheLastStepsCreditUnlessUpstream) {
  PendingReward pending{-0.2, 0.1};
  RewardBreakdown ours;
  FlushPending(RewardConfig(), &pending, &ours);
  EXPECT_NEAR(ours.total(), -0.1, kTolerance);
  pending = {-0.2, 0.1};
  RewardBreakdown upstream;
  FlushPending(RewardConfig::Upstream(), &pending, &upstream);
  EXPECT_DOUBLE_EQ(upstream.total(), 0);
  EXPECT_DOUBLE_EQ(pending.credit, 0);
}

TEST(CountsAsContributingTest, AsksTheCounterfactualNotTheHostsDrift) {
  EXPECT_FALSE(CountsAsContributing(RewardConfig(), 20.0, 0.2));
  EXPECT_FALSE(CountsAsContributing(RewardConfig(), 20.0, std::nullopt));
  EXPECT_TRUE(CountsAsContributing(RewardConfig(), -1.0, 1.0));
  EXPECT_TRUE(CountsAsContributing(RewardConfig::Upstream(), 20.0, 0.2));
}

TEST(RewardConfigTest, SurvivesJson) {
  for (RewardMode mode : kModes) {
    RewardConfig config = RewardConfig::Upstream(mode);
    config.rent_weight = 0.25;
    config.free_slots = 2;
    config.disable_pbrs = true;
    const nlohmann::json json = RewardConfigToJson(config);
    const auto back = RewardConfigFromJson(json, RewardConfig());
    ASSERT_OK(back);
    EXPECT_EQ(RewardConfigToJson(*back), json);
    EXPECT_TRUE(std::isinf(back->prune_attribution_cap));
    const auto name = RewardModeFromName(RewardModeName(mode));
    ASSERT_OK(name);
    EXPECT_EQ(*name, mode);
  }
}

TEST(RewardConfigTest, RefusesUnknownFieldsTypesAndRanges) {
  for (const char* text :
       {R"({"rent_wieght": 1})", R"({"rent_weight": "1"})",
        R"({"free_slots": 1.5})", R"({"disable_pbrs": 1})",
        R"({"reward_mode": "loss"})", R"({"drip_fraction": 1.5})",
        R"({"gamma": 0.99})", R"({"param_budget": 0})",
        R"({"min_drip_epochs": 0})", R"({"rent_weight": null})", R"([])"}) {
    EXPECT_THAT(
        RewardConfigFromJson(nlohmann::json::parse(text), RewardConfig()),
        Refused(kInvalid, "MALFORMED_REQUEST"))
        << text;
  }
}

TEST(RewardConfigTest, BasicPlusDripsUnlessToldOtherwise) {
  const auto plain = RewardConfigFromJson(
      nlohmann::json::parse(R"({"reward_mode": "basic_plus"})"),
      RewardConfig());
  EXPECT_DOUBLE_EQ(plain->drip_fraction, 0.7);
  const auto none = RewardConfigFromJson(
      nlohmann::json::parse(
          R"({"reward_mode": "basic_plus", "drip_fraction": 0})"),
      RewardConfig());
  EXPECT_DOUBLE_EQ(none->drip_fraction, 0);
}

}  // namespace
}  // namespace esper::env
