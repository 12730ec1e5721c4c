// Rent, hindsight, pre-flight checks and outcome: the small rules of a step.
// Their numbers are pinned by //tests/golden/training_parity.
#include <limits>
#include <vector>

#include "core/env/hindsight.h"
#include "core/env/outcome.h"
#include "core/env/preflight.h"
#include "core/env/rent.h"
#include "core/policy/action_mask.h"
#include "gtest/gtest.h"

namespace esper::env {
namespace {

using policy::Op;

RentSlot Blended(double alpha, int64_t params) {
  RentSlot slot;
  slot.slot_id = "r0c0";
  slot.live = true;
  slot.stage = policy::kStageBlending;
  slot.alpha = alpha;
  slot.seed_params = params;
  return slot;
}

TEST(RentMeterTest, CountsTheGateAndAHostSharePerBlendedSeed) {
  RentMeter meter;
  RentSlot slot = Blended(0.5, 100);
  slot.gate_params = 20;
  EXPECT_DOUBLE_EQ(meter.Measure({slot}, 1000).effective_seed_params,
                   3.9 + 60.0);
  slot.stage = policy::kStageTraining;
  EXPECT_DOUBLE_EQ(meter.Measure({slot}, 1000).effective_seed_params, 0.0);
}

TEST(RentMeterTest, ShocksByTheChangeSinceTheLastStep) {
  RentMeter meter;
  EXPECT_DOUBLE_EQ(meter.Measure({Blended(0.2, 100)}, 1000).alpha_delta_sq_sum,
                   0.0);
  EXPECT_DOUBLE_EQ(meter.Measure({Blended(0.7, 100)}, 1000).alpha_delta_sq_sum,
                   0.25 * 0.1);
  RentSlot empty;
  empty.slot_id = "r0c0";
  EXPECT_NEAR(meter.Measure({empty}, 1000).alpha_delta_sq_sum, 0.49 * 0.1,
              1e-15);
  meter.Reset();
  EXPECT_EQ(meter.previous_params("r0c0"), 0);
}

TEST(HindsightLedgerTest, PaysBothWaysOfAPositiveInteractionOnce) {
  HindsightLedger ledger;
  ledger.RecordInteraction("a", "b", 2.0, 10);
  ledger.RecordInteraction("a", "b", -2.0, 11);
  ASSERT_EQ(ledger.entries().size(), 2);
  const HindsightCredit credit = ledger.Settle("b", 5.0, 20);
  EXPECT_EQ(credit.scaffolds, 1);
  EXPECT_EQ(credit.total_delay, 10);
  EXPECT_NEAR(credit.credit, 0.076159415595576 * 0.951110130465772, 1e-12);
  EXPECT_DOUBLE_EQ(ledger.Settle("b", 5.0, 20).credit, 0);
  EXPECT_GT(ledger.Settle("a", 5.0, 20).credit, 0);
}

TEST(HindsightLedgerTest, CapsTheCreditAndPaysNothingWithoutImprovement) {
  HindsightLedger ledger;
  for (int i = 0; i < 9; ++i) ledger.Record({"a", "b", 10.0, 20});
  EXPECT_DOUBLE_EQ(ledger.Settle("b", -1.0, 20).credit, 0);
  EXPECT_EQ(ledger.entries().size(), 9);
  EXPECT_DOUBLE_EQ(ledger.Settle("b", 9.0, 20).credit, 0.2);
  EXPECT_TRUE(ledger.entries().empty());
}

TEST(PreflightTest, NeverVetoesWait) {
  PreflightInputs inputs;
  inputs.val_loss = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(PreflightVeto(inputs), "");
  inputs.op = Op::kAdvance;
  EXPECT_EQ(PreflightVeto(inputs), "val_loss_finite");
}

// Where the mask allows an op on a slot, the op takes effect there; the only
// ops that could and yet are masked are GERMINATE, which the rest of the model
// may block, and none other.
TEST(EffectiveOpTest, AgreesWithTheActionMask) {
  for (int64_t stage : {-1, 1, 2, 3, 4, 6, 7, 8, 9, 10}) {
    for (int64_t age : {0, 4, 5, 20}) {
      for (int64_t mode : {0, 1, 2}) {
        policy::ActionMaskOptions options;
        options.slot_ids = options.enabled_slots = {"r0c0"};
        policy::SlotMaskStates states = {{"r0c0", std::nullopt}};
        TargetSlot target;
        target.alpha_mode = mode;
        target.age_epochs = age;
        if (stage >= 0) {
          states["r0c0"] = policy::SlotMaskState{stage, age, mode};
          target.stage = stage;
        }
        const auto mask = policy::BuildActionMask(options, states);
        ASSERT_TRUE(mask.ok());
        for (int i = 0; i < policy::kNumOps; ++i) {
          const auto op = static_cast<Op>(i);
          EXPECT_EQ(mask->AllowsSlot(op, 0), EffectiveOp(op, target) == op)
              << policy::OpName(op) << " stage " << stage << " age " << age;
        }
        target.enabled = false;
        EXPECT_EQ(EffectiveOp(Op::kGerminate, target), Op::kWait);
      }
    }
  }
}

TEST(SummarizeEpisodeTest, MeasuresStabilityOverTheLastTwentyRewards) {
  std::vector<double> rewards = {100.0, -100.0};
  rewards.insert(rewards.end(), 20, 0.5);
  const EpisodeOutcome calm = SummarizeEpisode(82.0, 1500, 1000, 2, 1, rewards);
  EXPECT_DOUBLE_EQ(calm.stability, 1.0);
  EXPECT_DOUBLE_EQ(calm.episode_return, 10.0);
  EXPECT_DOUBLE_EQ(calm.param_ratio, 1.5);
  EXPECT_DOUBLE_EQ(calm.roi, 82.0 / 1.5);
  EXPECT_EQ(calm.label, "success");
  const EpisodeOutcome wild = SummarizeEpisode(79.9, 0, 0, 0, 0, {1.0, 3.0});
  EXPECT_DOUBLE_EQ(wild.stability, 0.5);
  EXPECT_EQ(wild.label, "timeout");
  EXPECT_DOUBLE_EQ(SummarizeEpisode(50, 1, 1, 0, 0, {9.0}).stability, 1.0);
}

}  // namespace
}  // namespace esper::env
