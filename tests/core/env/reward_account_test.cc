#include "core/env/reward_account.h"

#include <cmath>
#include <string>
#include <vector>

#include "core/env/hindsight.h"
#include "gtest/gtest.h"

namespace esper::env {
namespace {

using policy::Op;
using slot::SeedStage;

const std::vector<std::string> kSlots = {"r0c0", "r0c1", "r0c2"};

slot::SlotReport Seed(const std::string& slot_id, SeedStage stage,
                      double alpha) {
  slot::SlotReport report;
  report.slot_id = slot_id;
  report.seed_id = "seed-" + slot_id;
  report.blueprint_id = "norm";
  report.stage = stage;
  report.metrics.epochs_total = 12;
  report.metrics.epochs_in_stage = 6;
  report.metrics.initial_accuracy = 50;
  report.metrics.current_accuracy = 60;
  report.telemetry.alpha.alpha = alpha;
  return report;
}

slot::SlotAttribution Worth(const std::string& slot_id, double contribution) {
  slot::SlotAttribution attribution;
  attribution.slot = slot_id;
  attribution.contribution = contribution;
  attribution.baseline = 60 - contribution;
  return attribution;
}

RewardContext Context(int epoch) {
  RewardContext context;
  context.epoch = epoch;
  context.measured.samples = 144;
  context.measured.val_accuracy = 60;
  context.measured.committed_accuracy = 60;
  context.measured.val_loss = 1;
  context.slot_parameters = {0, 0, 0};
  context.host_parameters = 6274;
  context.total_parameters = 6274;
  return context;
}

class RewardAccountTest : public ::testing::Test {
 protected:
  RewardAccountTest() { config_.max_epochs = 20; }

  RewardBreakdown Pay(RewardAccount& account, const RewardContext& context,
                      Op op, int64_t target) {
    auto reward = account.Pay(context, op, target);
    EXPECT_TRUE(reward.ok()) << reward.status();
    return reward.ok() ? *reward : RewardBreakdown();
  }

  EpisodeConfig config_;
};

TEST_F(RewardAccountTest, PaysAnAutomaticPruneWithTheNextStep) {
  RewardAccount account(config_, kSlots);
  account.OnTick({}, {"r0c1", "r0c2"});
  EXPECT_DOUBLE_EQ(Pay(account, Context(3), Op::kWait, 0).auto_prune, -0.4);
  EXPECT_DOUBLE_EQ(Pay(account, Context(4), Op::kWait, 0).auto_prune, 0);
}

TEST_F(RewardAccountTest, AddsWhatIsPendingAtTheEndToTheLastReward) {
  RewardAccount account(config_, kSlots);
  RewardBreakdown last = Pay(account, Context(20), Op::kWait, 0);
  const double before = last.total();
  account.OnTick({}, {"r0c1"});
  account.Close(&last);
  EXPECT_DOUBLE_EQ(last.total(), before - 0.2);

  config_.reward.flush_pending_at_end = false;
  RewardAccount upstream(config_, kSlots);
  last = Pay(upstream, Context(20), Op::kWait, 0);
  upstream.OnTick({}, {"r0c1"});
  upstream.Close(&last);
  EXPECT_DOUBLE_EQ(last.total(), before);
}

TEST_F(RewardAccountTest, CreditsTheScaffoldsOfAFossilWithTheNextStep) {
  RewardAccount account(config_, kSlots);
  RewardContext context = Context(8);
  context.reports["r0c0"] = Seed("r0c0", SeedStage::kHolding, 1);
  context.reports["r0c1"] = Seed("r0c1", SeedStage::kBlending, 0.5);
  context.slot_parameters = {80, 33, 0};
  context.measured.slots = {Worth("r0c0", 3), Worth("r0c1", 0.5)};
  context.measured.pairs = {{0, 1, 2.0}};
  context.measured.all_off_accuracy = 55;
  account.OnValidation(context.measured, 6);

  const RewardBreakdown paid = Pay(account, context, Op::kFossilize, 0);
  EXPECT_EQ(paid.hindsight, 0);
  account.OnOutcome(context, Op::kFossilize, /*success=*/true, 0, paid);
  EXPECT_EQ(account.contributing(), 1);
  account.OnTick(context.reports, {});
  const double expected = std::tanh(2.0 * 10 * 0.1) * 0.1 * std::pow(0.995, 2);
  EXPECT_NEAR(Pay(account, Context(9), Op::kWait, 0).hindsight, expected,
              1e-12);
}

TEST_F(RewardAccountTest, CountsAFossilAsContributingByWhatItMeasures) {
  RewardContext context = Context(8);
  context.reports["r0c0"] = Seed("r0c0", SeedStage::kHolding, 1);
  context.slot_parameters = {80, 0, 0};
  context.measured.slots = {Worth("r0c0", 0.5)};  // But accuracy rose by 10.
  context.measured.all_off_accuracy = 59.5;
  const auto contributing = [&] {
    RewardAccount account(config_, kSlots);
    const RewardBreakdown paid = Pay(account, context, Op::kFossilize, 0);
    account.OnOutcome(context, Op::kFossilize, true, 0, paid);
    return account.contributing();
  };
  EXPECT_EQ(contributing(), 0);
  config_.reward.contributing = RewardConfig::Contributing::kSinceGermination;
  EXPECT_EQ(contributing(), 1);
}

TEST_F(RewardAccountTest, RemembersTheAccuracyAtGerminationUntilTheSeedGoes) {
  RewardAccount account(config_, kSlots);
  RewardContext context = Context(5);
  const RewardBreakdown planted = Pay(account, context, Op::kGerminate, 0);
  account.OnOutcome(context, Op::kGerminate, true, 0, planted);
  // Progress since germination limits what a contribution earns: none so far.
  context.epoch = 15;
  context.reports["r0c0"] = Seed("r0c0", SeedStage::kBlending, 0.5);
  context.slot_parameters = {80, 0, 0};
  context.measured.slots = {Worth("r0c0", 4)};
  context.measured.all_off_accuracy = 56;
  account.OnTick(context.reports, {});
  EXPECT_EQ(Pay(account, context, Op::kWait, 0).attribution, 0);
  context.measured.val_accuracy = 70;
  context.measured.all_off_accuracy = 66;
  EXPECT_GT(Pay(account, context, Op::kWait, 0).attribution, 1);

  // A pruned seed's record goes; its successor in the slot has none.
  account.OnTick({}, {});
  context.measured.val_accuracy = 60;
  context.measured.all_off_accuracy = 56;
  const double timing = 0.4 + 0.6 * 3 / 10;  // Germinated in epoch 3.
  EXPECT_DOUBLE_EQ(Pay(account, context, Op::kWait, 0).attribution, 2 * timing);
}

TEST_F(RewardAccountTest, RefusedActionsLeaveNoRecord) {
  RewardAccount account(config_, kSlots);
  RewardContext context = Context(8);
  context.reports["r0c0"] = Seed("r0c0", SeedStage::kHolding, 1);
  context.slot_parameters = {80, 0, 0};
  context.measured.slots = {Worth("r0c0", 5)};
  context.measured.all_off_accuracy = 55;
  const RewardBreakdown paid = Pay(account, context, Op::kWait, 0);
  account.OnOutcome(context, Op::kFossilize, /*success=*/false, 0, paid);
  EXPECT_EQ(account.contributing(), 0);
}

TEST_F(RewardAccountTest, ChargesRentForBlendedSeedsAndNoneForTheBareHost) {
  RewardAccount account(config_, kSlots);
  EXPECT_EQ(Pay(account, Context(3), Op::kWait, 0).rent, 0);
  RewardContext context = Context(4);
  context.reports["r0c0"] = Seed("r0c0", SeedStage::kHolding, 1);
  context.slot_parameters = {1000, 0, 0};
  context.total_parameters += 1000;
  const double overhead = 0.0039 * 6274 + 1000;
  EXPECT_NEAR(Pay(account, context, Op::kWait, 0).rent,
              -0.5 * std::log(1 + overhead / 6274), 1e-12);
}

}  // namespace
}  // namespace esper::env
